package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test program be the supervisor of its own tests.
func TestMain(m *testing.M) {
	if patience, err := time.ParseDuration(os.Getenv("SUPERVISE_TEST_PATIENCE")); err == nil {
		endPatience = patience
		os.Exit(Main())
	}
	os.Exit(m.Run())
}

// bench is one supervisor under test, in folders of its own.
type bench struct {
	t        *testing.T
	config   Config
	path     string
	run      *exec.Cmd
	patience time.Duration // how long daemons may take to end
}

func newBench(t *testing.T, processes ...Process) *bench {
	t.Helper()
	directory := t.TempDir()
	b := &bench{t: t, path: filepath.Join(directory, "processes.json"), patience: endPatience, config: Config{
		Name: "test", LogDirectory: filepath.Join(directory, "log"), StateDirectory: filepath.Join(directory, "state"), Processes: processes,
	}}
	b.write()
	t.Cleanup(func() {
		if b.run != nil && b.run.ProcessState == nil {
			b.run.Process.Kill() //nolint:errcheck // it may be gone
			b.run.Wait()         //nolint:errcheck // killed
		}
	})
	return b
}

func (b *bench) write() {
	b.t.Helper()
	content, err := json.Marshal(b.config)
	if err == nil {
		err = os.WriteFile(b.path, content, 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) command() *exec.Cmd {
	command := exec.Command(os.Args[0], "--config", b.path)
	command.Env = append(os.Environ(), "SUPERVISE_TEST_PATIENCE="+b.patience.String(), "SECRET_OF_THE_CALLER=1")
	return command
}

func (b *bench) start() {
	b.t.Helper()
	b.run = b.command()
	b.run.Stderr = os.Stderr
	if err := b.run.Start(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) signal(signal os.Signal) {
	b.t.Helper()
	if err := b.run.Process.Signal(signal); err != nil {
		b.t.Fatal(err)
	}
}

// end asks the supervisor to end and returns its exit code.
func (b *bench) end() int {
	b.t.Helper()
	b.signal(syscall.SIGTERM)
	b.run.Wait() //nolint:errcheck // the code is returned
	return b.run.ProcessState.ExitCode()
}

func (b *bench) status() Status {
	raw, _ := os.ReadFile(filepath.Join(b.config.StateDirectory, statusFile))
	var status Status
	json.Unmarshal(raw, &status) //nolint:errcheck // not there yet: a zero status
	return status
}

func (b *bench) process(name string) ProcessStatus {
	for _, p := range b.status().Processes {
		if p.Name == name {
			return p
		}
	}
	return ProcessStatus{}
}

func (b *bench) log(name string) string {
	raw, _ := os.ReadFile(filepath.Join(b.config.LogDirectory, name+".log"))
	return string(raw)
}

// eventually waits for something to hold, long enough for a busy machine.
func (b *bench) eventually(what string, holds func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !holds() {
		if time.Now().After(deadline) {
			b.t.Fatalf("%s does not come true; the status is %+v; the supervisor says:\n%s", what, b.status(), b.log("supervisor"))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (b *bench) awaitRunning() {
	b.t.Helper()
	b.eventually("every process running", func() bool {
		status := b.status()
		if status.PID != b.run.Process.Pid || len(status.Processes) != len(b.config.Processes) {
			return false
		}
		for _, p := range status.Processes {
			if p.State != running || p.PID == 0 {
				return false
			}
		}
		return true
	})
}

func shell(name, script string, after ...string) Process {
	return Process{Name: name, Command: []string{"/bin/sh", "-c", script}, After: after, RestartSeconds: 0.05}
}

func alive(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(raw), ") Z ")
}

func TestStartsInOrderAndEndsInReverse(t *testing.T) {
	order := filepath.Join(t.TempDir(), "order")
	script := func(name string) string {
		return fmt.Sprintf(`trap 'echo %s >>%s; exit 0' TERM; echo ready; while :; do sleep 0.02; done`, name, order)
	}
	b := newBench(t, shell("kubelet", script("kubelet"), "api"), shell("api", script("api"), "etcd"), shell("etcd", script("etcd")))
	b.start()
	b.awaitRunning()
	etcd, api, kubelet := b.process("etcd"), b.process("api"), b.process("kubelet")
	if api.Started.Before(*etcd.Started) || kubelet.Started.Before(*api.Started) {
		t.Errorf("started at %v, %v, %v", etcd.Started, api.Started, kubelet.Started)
	}
	for _, name := range []string{"etcd", "api", "kubelet"} {
		b.eventually("the trap of "+name, func() bool { return strings.Contains(b.log(name), "ready") })
	}
	if code := b.end(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if ended, _ := os.ReadFile(order); string(ended) != "kubelet\napi\netcd\n" {
		t.Errorf("ended in the order %q", ended)
	}
	if _, err := os.Stat(filepath.Join(b.config.StateDirectory, pidFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pid file is left: %v", err)
	}
	for _, p := range b.status().Processes {
		if p.PID != 0 || p.State != ended {
			t.Errorf("%+v", p)
		}
	}
}

func TestRestartsWithGrowingPauses(t *testing.T) {
	b := newBench(t, shell("flaky", "exit 3"), Process{Name: "absent", Command: []string{"/nowhere/absent"}, RestartSeconds: 0.05},
		shell("killed", `kill -9 $$`))
	b.start()
	b.eventually("three restarts", func() bool { return b.process("flaky").Restarts >= 3 && b.process("absent").Restarts >= 2 })
	if exit := b.process("flaky").LastExit; exit == nil || exit.Code != 3 {
		t.Errorf("%+v", exit)
	}
	if exit := b.process("absent").LastExit; exit == nil || !strings.Contains(exit.Error, "no such file") {
		t.Errorf("%+v", exit)
	}
	if exit := b.process("killed").LastExit; exit == nil || exit.Signal != "killed" {
		t.Errorf("%+v", exit)
	}
	for _, pause := range []string{"50ms", "100ms", "200ms"} {
		if sentence := "exit code 3; it begins again in " + pause; !strings.Contains(b.log("flaky"), sentence) {
			t.Errorf("%q is missing in\n%s", sentence, b.log("flaky"))
		}
	}
	b.end()
}

func TestAPauseIsNeverLongerThanTheLimit(t *testing.T) {
	p := &process{Process: Process{Name: "p", RestartSeconds: 1}, log: newLogFile(filepath.Join(t.TempDir(), "p.log"))}
	s := &supervisor{processes: map[string]*process{}, restarts: make(chan *process, 16), log: newLogFile(filepath.Join(t.TempDir(), "s.log")),
		config: Config{StateDirectory: t.TempDir()}}
	var pauses []time.Duration
	for range 6 {
		p.began = time.Now()
		s.died(p, Exit{})
		p.timer.Stop()
		pauses = append(pauses, p.pause)
	}
	if fmt.Sprint(pauses) != "[2s 4s 8s 15s 15s 15s]" {
		t.Errorf("%v", pauses)
	}
	p.began = time.Now().Add(-provenAfter)
	s.died(p, Exit{})
	p.timer.Stop()
	if p.pause != 2*time.Second {
		t.Errorf("after a long run the next pause but one is %s", p.pause)
	}
}

func TestAKilledSupervisorTakesItsChildrenAlongAndIsReplaced(t *testing.T) {
	b := newBench(t, shell("etcd", "exec sleep 1000"), shell("api", "exec sleep 1000", "etcd"))
	b.start()
	b.awaitRunning()
	before := []int{b.process("etcd").PID, b.process("api").PID}
	b.signal(syscall.SIGKILL)
	b.run.Wait() //nolint:errcheck // killed
	b.start()
	b.awaitRunning()
	for _, pid := range before {
		if alive(pid) {
			t.Errorf("process %d of the killed supervisor lives beside its successor", pid)
		}
	}
	b.end()
}

func TestAProcessThatEscapedIsEndedAndAStrangerIsNot(t *testing.T) {
	escaped, stranger := exec.Command("/bin/sleep", "1000"), exec.Command("/bin/sleep", "1000")
	for _, command := range []*exec.Cmd{escaped, stranger} {
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { command.Process.Kill(); command.Wait() }) //nolint:errcheck // it may be gone
	}
	ticks, err := startTicks(escaped.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, shell("etcd", "exec sleep 1000"))
	status, _ := json.Marshal(Status{Boot: bootID(), Processes: []ProcessStatus{
		{Name: "etcd", PID: escaped.Process.Pid, Ticks: ticks}, {Name: "api", PID: stranger.Process.Pid, Ticks: ticks - 1},
	}})
	if err := os.MkdirAll(b.config.StateDirectory, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.config.StateDirectory, statusFile), status, 0o600); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.awaitRunning()
	if alive(escaped.Process.Pid) || !alive(stranger.Process.Pid) {
		t.Errorf("escaped lives: %t, stranger lives: %t", alive(escaped.Process.Pid), alive(stranger.Process.Pid))
	}
	b.end()
}

func TestASecondSupervisorIsRefused(t *testing.T) {
	b := newBench(t, shell("etcd", "exec sleep 1000"))
	b.start()
	b.awaitRunning()
	output, err := b.command().CombinedOutput()
	var failed *exec.ExitError
	if !errors.As(err, &failed) || failed.ExitCode() != exitRunning || !strings.Contains(string(output), fmt.Sprint(b.run.Process.Pid)) {
		t.Errorf("%v: %s", err, output)
	}
	b.end()
}

func TestAStubbornProcessIsKilled(t *testing.T) {
	b := newBench(t, shell("stubborn", `trap '' TERM; echo deaf; while :; do sleep 0.1; done`))
	b.patience = 500 * time.Millisecond
	b.start()
	b.awaitRunning()
	pid := b.process("stubborn").PID
	b.eventually("deafness", func() bool { return strings.Contains(b.log("stubborn"), "deaf") })
	if code := b.end(); code != exitOK || alive(pid) {
		t.Errorf("exit code %d, alive: %t", code, alive(pid))
	}
	if exit := b.process("stubborn").LastExit; exit == nil || exit.Signal != "killed" {
		t.Errorf("%+v", exit)
	}
}

func TestReloadTouchesOnlyWhatChanged(t *testing.T) {
	b := newBench(t, shell("etcd", "exec sleep 1000"), shell("api", "exec sleep 1000", "etcd"), shell("gone", "exec sleep 1000"))
	b.start()
	b.awaitRunning()
	etcd, api, gone := b.process("etcd").PID, b.process("api").PID, b.process("gone").PID

	b.config.Processes[1].Env = map[string]string{"DIGEST": "of a file that the daemon reads"}
	b.config.Processes[2] = shell("new", "exec sleep 1000", "api")
	b.config.Processes[0].RestartSeconds = 2
	b.write()
	b.signal(syscall.SIGHUP)
	b.eventually("the new process", func() bool { return b.process("new").PID != 0 })
	b.awaitRunning()
	if now := b.process("etcd").PID; now != etcd {
		t.Errorf("the unchanged process was restarted: %d, then %d", etcd, now)
	}
	if now := b.process("api").PID; now == api || alive(api) || alive(gone) {
		t.Errorf("the changed one still is %d, or the removed one %d lives", now, gone)
	}

	good := b.config.Processes
	b.config.Processes = []Process{{Name: "etcd"}}
	b.write()
	b.signal(syscall.SIGHUP)
	b.eventually("the refusal", func() bool { return strings.Contains(b.status().ConfigError, "needs a command") })
	if b.process("etcd").PID != etcd || b.process("new").PID == 0 {
		t.Errorf("a refused configuration changed something: %+v", b.status())
	}
	b.config.Processes = good
	b.write()
	b.signal(syscall.SIGHUP)
	b.eventually("the pardon", func() bool { return b.status().ConfigError == "" })
	b.end()
}

func TestReloadStartsWhatWaitsAtOnce(t *testing.T) {
	mended := filepath.Join(t.TempDir(), "mended")
	flaky := shell("flaky", fmt.Sprintf("test -e %s && exec sleep 1000", mended))
	flaky.RestartSeconds = 15
	b := newBench(t, flaky)
	b.start()
	b.eventually("the failure", func() bool { return b.process("flaky").State == waiting })
	if err := os.WriteFile(mended, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.signal(syscall.SIGHUP)
	b.awaitRunning()
	b.end()
}

func TestChildrenGetACleanEnvironmentAndNoStrayFiles(t *testing.T) {
	p := shell("child", "env; ls /proc/self/fd | wc -l; exec sleep 1000")
	p.Env = map[string]string{"OWN": "value"}
	b := newBench(t, p)
	b.start()
	b.awaitRunning()
	b.eventually("the output", func() bool {
		return strings.Contains(b.log("child"), "OWN=value") && strings.Contains(b.log("child"), "\n4\n")
	})
	if strings.Contains(b.log("child"), "SECRET_OF_THE_CALLER") {
		t.Errorf("the caller's environment got in:\n%s", b.log("child"))
	}
	b.end()
}

func TestADaemonsOffspringDoesNotDelayItsRestart(t *testing.T) {
	b := newBench(t, shell("parent", `sleep 1000 & echo "offspring $!."; exit 1`))
	b.start()
	b.eventually("a restart", func() bool { return b.process("parent").Restarts >= 1 }) // its offspring holds the pipe for longer
	b.end()
	for _, line := range strings.Split(b.log("parent"), "\n") {
		var offspring int
		if n, _ := fmt.Sscanf(line, "offspring %d.", &offspring); n == 1 {
			syscall.Kill(offspring, syscall.SIGKILL) //nolint:errcheck // it may be gone
		}
	}
}

func TestAFullDiskStopsNothing(t *testing.T) {
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	b := newBench(t, shell("chatty", "while :; do echo line; sleep 0.01; done"))
	b.config.StateDirectory, b.config.LogDirectory = filepath.Join(disk, "state"), filepath.Join(disk, "log")
	b.write()
	b.start()
	b.awaitRunning()
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	before := b.process("chatty").PID
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	child := func() string {
		children, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", b.run.Process.Pid))
		var all strings.Builder
		for _, path := range children {
			content, _ := os.ReadFile(path)
			all.Write(content)
		}
		return strings.TrimSpace(all.String())
	}
	b.eventually("a restart on a full disk", func() bool { return child() != "" && child() != fmt.Sprint(before) })
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	size := len(b.log("chatty"))
	b.eventually("a current status", func() bool { return fmt.Sprint(b.process("chatty").PID) == child() })
	b.eventually("a growing log", func() bool { return len(b.log("chatty")) > size })
	b.end()
}

func TestJoinsTheNetworkNamespaceAndItsReplacement(t *testing.T) {
	first, second := newNetns(t), newNetns(t)
	link := filepath.Join(t.TempDir(), "netns")
	if err := os.Symlink(first, link); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, shell("child", "readlink /proc/self/ns/net; exec sleep 1000"))
	b.config.Netns = link
	b.write()
	b.start()
	b.awaitRunning()
	shows := func(path string) func() bool {
		want, _ := os.Readlink(path)
		return func() bool { return strings.Contains(b.log("child"), want+"\n") }
	}
	b.eventually("the first namespace", shows(first))

	os.Remove(link) //nolint:errcheck // the next line fails if it could not
	if err := os.Symlink(second, link); err != nil {
		t.Fatal(err)
	}
	b.signal(syscall.SIGHUP)
	b.eventually("the second namespace", shows(second))
	b.awaitRunning()
	if own, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", b.run.Process.Pid)); shows(first)() && own == "" {
		t.Error("the supervisor's own namespace cannot be read")
	}
	b.end()
}

// newNetns makes a network namespace that lives as long as the test, and returns its path.
func newNetns(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	path, done := make(chan string), make(chan struct{})
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			path <- ""
			return
		}
		path <- fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		<-done
	}()
	t.Cleanup(func() { close(done) })
	made := <-path
	if made == "" {
		t.Skip("no network namespace can be made here")
	}
	return made
}

func TestJoinsTheControlGroups(t *testing.T) {
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	found, err := hierarchies(strings.NewReader(string(mountinfo)))
	if err != nil {
		t.Fatal(err)
	}
	folder := fmt.Sprintf("groundwork-test-%d", os.Getpid())
	writable := 0
	for _, h := range found {
		if os.Mkdir(filepath.Join(h.mount, folder), 0o755) == nil {
			writable++
		}
		t.Cleanup(func() {
			os.Remove(filepath.Join(h.mount, folder, leaf)) //nolint:errcheck // the next one shows it
			if err := os.Remove(filepath.Join(h.mount, folder)); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
		})
	}
	if writable == 0 {
		t.Skip("no control group hierarchy can be written here")
	}
	b := newBench(t, shell("child", "exec sleep 1000"))
	b.config.Cgroup = folder
	b.write()
	b.start()
	b.awaitRunning()
	cgroups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", b.process("child").PID))
	if err != nil {
		t.Fatal(err)
	}
	if joined := strings.Count(string(cgroups), "/"+folder+"/supervisor\n"); joined != writable || len(b.status().Cgroups) != writable {
		t.Errorf("%d of %d hierarchies joined:\n%s%+v", joined, writable, cgroups, b.status().Cgroups)
	}
	b.end()
}
