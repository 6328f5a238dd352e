// Package supervise keeps one cluster's daemons running: started in order inside the cluster's control groups and network
// namespace, restarted when they die, logged, and ended in order.
package supervise

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	longestPause = 15 * time.Second       // between restarts of what keeps dying
	provenAfter  = 30 * time.Second       // of running: the next pause is the first again
	killPatience = 10 * time.Second       // for a process to vanish after SIGKILL
	drainTime    = 500 * time.Millisecond // for the output of what a dead daemon started
)

// endPatience is the time that each level of processes has to end after SIGTERM; tests shorten it.
var endPatience = 10 * time.Second

// Exit codes of Main.
const (
	exitOK      = 0
	exitFailed  = 1
	exitConfig  = 2
	exitRunning = 3
)

// Main runs "supervise --config FILE" until SIGTERM or SIGINT; SIGHUP reads the configuration again.
func Main() int {
	flags := flag.NewFlagSet("supervise", flag.ContinueOnError)
	path := flags.String("config", "", "the processes.json to run (required)")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return exitConfig
	}
	if *path == "" || flags.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "supervise: usage: supervise --config FILE")
		return exitConfig
	}
	err := run(*path)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(os.Stderr, "supervise:", err)
	if running := (*runningError)(nil); errors.As(err, &running) {
		return exitRunning
	}
	if refused := (*configError)(nil); errors.As(err, &refused) {
		return exitConfig
	}
	return exitFailed
}

// configError marks what the user has to mend in the configuration.
type configError struct{ error }

func (e *configError) Unwrap() error { return e.error }

func run(path string) error {
	// Whoever started us may be gone with its end of our standard error; that must not kill the cluster. Asking for the
	// signal, unlike ignoring it, is not inherited by children.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)

	// What the caller left open (a pipe that it waits on, say) is not for the daemons to hold.
	unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) //nolint:errcheck // a kernel before 5.11: then they hold it

	config, err := Load(path)
	if err != nil {
		return &configError{err}
	}
	for _, directory := range []string{config.StateDirectory, config.LogDirectory} {
		if err := os.MkdirAll(directory, 0o755); err != nil {
			return err
		}
	}
	lock, err := lockState(config.StateDirectory)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := endPredecessors(config.StateDirectory, killPatience); err != nil {
		return err
	}
	s := &supervisor{
		path:      path,
		config:    config,
		signals:   signals,
		exits:     make(chan exit),
		restarts:  make(chan *process),
		processes: map[string]*process{},
		log:       newLogFile(filepath.Join(config.LogDirectory, "supervisor.log")),
		started:   time.Now().UTC(),
	}
	if err := s.settle(); err != nil {
		return err
	}
	if err := writeAtomic(filepath.Join(config.StateDirectory, pidFile), []byte(strconv.Itoa(os.Getpid())+"\n")); err != nil {
		return err
	}
	s.loop()
	return os.Remove(filepath.Join(config.StateDirectory, pidFile))
}

// supervisor is owned by the goroutine that runs loop; others only send to its channels.
type supervisor struct {
	path      string
	config    Config
	signals   chan os.Signal
	exits     chan exit
	restarts  chan *process
	processes map[string]*process
	spawner   *spawner
	log       *logFile
	started   time.Time
	cgroups   []string
	refused   string // why the last reload changed nothing
	ending    bool
	hurry     bool // a second SIGTERM: no more patience
	stale     bool // the status file could not be written
}

// process is one daemon, running or about to.
type process struct {
	Process
	state    string
	netns    string // identity of the namespace that it was started in
	handle   *os.Process
	ticks    uint64
	began    time.Time
	pause    time.Duration // before the next restart; 0: the first one
	timer    *time.Timer
	restarts int
	lastExit *Exit
	log      *logFile
	held     bool // killed, yet still there: nothing may be started in its place until it is gone
}

const (
	running  = "running"
	waiting  = "waiting"
	stopping = "stopping"
	ended    = "ended"
)

// exit is the news that a process ended.
type exit struct {
	process *process
	how     Exit
}

// settle joins the control groups and the network namespace.
func (s *supervisor) settle() error {
	if s.config.Cgroup != "" {
		mountinfo, err := os.Open("/proc/self/mountinfo")
		if err != nil {
			return err
		}
		defer mountinfo.Close()
		found, err := hierarchies(mountinfo)
		if err != nil {
			return err
		}
		joined, skipped, err := joinCgroups(found, s.config.Cgroup, os.Getpid())
		if err != nil {
			return err
		}
		for _, sentence := range skipped {
			s.log.Printf("%s", sentence)
		}
		s.cgroups = joined
	}
	spawner, err := newSpawner(s.config.netnsPath())
	s.spawner = spawner
	return err
}

// loop starts everything and serves events until the end.
func (s *supervisor) loop() {
	s.log.Printf("%s: supervisor %d begins with %d processes", s.config.Name, os.Getpid(), len(s.config.Processes))
	s.startMissing()
	for !s.ending {
		s.event(nil)
	}
	s.log.Printf("%s: ending", s.config.Name)
	s.stop(func(*process) bool { return true })
	s.log.Printf("%s: ended", s.config.Name)
}

// event handles one thing that happens, or returns when the given time is over.
func (s *supervisor) event(timeout <-chan time.Time) {
	var retry <-chan time.Time
	if s.stale {
		retry = time.After(time.Second)
	}
	select {
	case <-timeout:
	case <-retry:
		s.report()
	case e := <-s.exits:
		s.exited(e)
	case p := <-s.restarts:
		// The timer of a process that was stopped meanwhile may still be on its way here.
		if p.state == waiting && s.processes[p.Name] == p {
			p.restarts++
			s.start(p)
		}
	case received := <-s.signals:
		switch {
		case received != syscall.SIGHUP:
			s.hurry = s.ending
			s.ending = true
		case !s.ending:
			s.reload()
		}
	}
}

// startMissing starts, in order, every configured process that has not been.
func (s *supervisor) startMissing() {
	levels, _ := s.config.levels() // checked when it was loaded
	for _, level := range levels {
		for _, wanted := range level {
			if s.processes[wanted.Name] != nil {
				continue
			}
			p := &process{Process: wanted, log: newLogFile(filepath.Join(s.config.LogDirectory, wanted.Name+".log"))}
			s.processes[wanted.Name] = p
			s.start(p)
		}
	}
	s.report()
}

// start runs p once; what cannot be started counts as having died at once.
func (s *supervisor) start(p *process) {
	p.began = time.Now().UTC()
	p.netns = s.spawner.netns
	err := s.spawn(p)
	if err != nil {
		s.died(p, Exit{Time: p.began, Code: -1, Error: err.Error()})
		return
	}
	p.state = running
	p.ticks, _ = startTicks(p.handle.Pid) // we have not waited for it yet, so it is there even when dead
	p.log.Printf("%s begins as process %d", p.Name, p.handle.Pid)
	s.report()
}

func (s *supervisor) spawn(p *process) error {
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	defer writer.Close()
	p.handle, err = s.spawner.start(p.Command, environment(p.Env), writer)
	if err != nil {
		reader.Close()
		return err
	}
	copied := make(chan struct{})
	go func() {
		copyLines(p.log, reader)
		reader.Close()
		close(copied)
	}()
	handle := p.handle
	go func() {
		how := howEnded(handle.Wait())
		// Something that the daemon started may hold the pipe on; it is not waited for.
		reader.SetReadDeadline(time.Now().Add(drainTime)) //nolint:errcheck // a pipe takes deadlines
		<-copied
		s.exits <- exit{p, how}
	}()
	return nil
}

// environment is a daemon's whole environment, sorted so that equal configurations give equal processes.
func environment(extra map[string]string) []string {
	all := map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME": "/root",
		"LANG": "C.UTF-8",
	}
	for name, value := range extra {
		all[name] = value
	}
	pairs := make([]string, 0, len(all))
	for name, value := range all {
		pairs = append(pairs, name+"="+value)
	}
	slices.Sort(pairs)
	return pairs
}

func howEnded(state *os.ProcessState, err error) Exit {
	how := Exit{Time: time.Now().UTC(), Code: -1}
	if err != nil {
		how.Error = err.Error()
		return how
	}
	how.Code = state.ExitCode()
	if wait, ok := state.Sys().(syscall.WaitStatus); ok && wait.Signaled() {
		how.Signal = wait.Signal().String()
	}
	return how
}

// exited takes note of an end, wanted or not.
func (s *supervisor) exited(e exit) {
	p := e.process
	p.handle = nil
	p.ticks = 0
	if p.state != stopping {
		s.died(p, e.how)
		return
	}
	p.state = ended
	p.lastExit = &e.how
	p.log.Printf("%s ended as it was told to: %s", p.Name, e.how)
	if p.held {
		delete(s.processes, p.Name)
		if !s.ending {
			s.startMissing()
		}
	}
	s.report()
}

// died plans the restart of a process that ended unasked.
func (s *supervisor) died(p *process, how Exit) {
	if p.pause == 0 || time.Since(p.began) >= provenAfter {
		p.pause = p.restartAfter()
	}
	p.state = waiting
	p.lastExit = &how
	pause := p.pause
	p.pause = min(2*pause, longestPause)
	p.timer = time.AfterFunc(pause, func() { s.restarts <- p })
	p.log.Printf("%s ended unasked: %s; it begins again in %s", p.Name, how, pause)
	s.log.Printf("%s ended unasked: %s; it begins again in %s", p.Name, how, pause)
	s.report()
}

// stop ends the chosen processes level by level, those last started first.
func (s *supervisor) stop(chosen func(*process) bool) {
	var order [][]*process
	levels, _ := s.config.levels()
	for _, level := range slices.Backward(levels) {
		var group []*process
		for _, configured := range level {
			if p := s.processes[configured.Name]; p != nil && chosen(p) {
				group = append(group, p)
			}
		}
		order = append(order, group)
	}
	for _, group := range order {
		s.stopTogether(group)
	}
}

// stopTogether asks processes to end, insists, and forgets them.
func (s *supervisor) stopTogether(group []*process) {
	for _, p := range group {
		if p.state != running {
			p.timer.Stop()
			p.state = ended
			continue
		}
		p.state = stopping
		p.handle.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended already, which is what we want
	}
	s.report()
	if !s.awaitEnd(group, endPatience, true) {
		for _, p := range group {
			if p.state == stopping {
				s.log.Printf("%s is killed: it did not end within %s of SIGTERM", p.Name, endPatience)
				p.handle.Kill() //nolint:errcheck // as above
			}
		}
		s.awaitEnd(group, killPatience, false)
	}
	for _, p := range group {
		if p.state == stopping {
			p.held = true
			s.log.Printf("%s does not end, even killed: the kernel still holds process %d", p.Name, p.handle.Pid)
			continue
		}
		delete(s.processes, p.Name)
	}
}

// awaitEnd serves events until all of the group have ended, and says whether they have within the time allowed.
func (s *supervisor) awaitEnd(group []*process, patience time.Duration, hurriable bool) bool {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	deadline := time.Now().Add(patience)
	for slices.ContainsFunc(group, func(p *process) bool { return p.state == stopping }) {
		if time.Now().After(deadline) || hurriable && s.hurry {
			return false
		}
		s.event(timeout.C)
	}
	return true
}

// reload takes over a changed configuration: what is new or waits for its restart starts, what changed restarts, what is
// gone ends, and the rest does not notice. A configuration that is refused changes nothing.
func (s *supervisor) reload() {
	next, spawner, err := s.prepareReload()
	s.refused = ""
	if err != nil {
		s.refused = err.Error()
		s.log.Printf("reload refused: %v", err)
		s.report()
		return
	}
	wanted := map[string]Process{}
	for _, p := range next.Processes {
		wanted[p.Name] = p
	}
	s.log.Printf("%s: reload", next.Name)
	s.stop(func(p *process) bool {
		other, kept := wanted[p.Name]
		return !kept || !p.sameRun(other) || p.netns != spawner.netns
	})
	s.spawner = spawner
	s.config = next
	for name, p := range s.processes {
		if !p.held {
			p.Process = wanted[name]
		}
	}
	if s.ending {
		return // told to end while it waited for a process to stop
	}
	for _, p := range s.processes {
		// Whatever kept it from running may be mended now, so nobody should have to wait for a long pause to end.
		if p.state == waiting {
			p.timer.Stop()
			delete(s.processes, p.Name)
		}
	}
	s.startMissing()
}

// prepareReload reads the configuration and, if the network namespace has been replaced, enters the new one.
func (s *supervisor) prepareReload() (Config, *spawner, error) {
	next, err := Load(s.path)
	if err != nil {
		return Config{}, nil, err
	}
	fixed := func(c Config) [4]string { return [4]string{c.Name, c.Cgroup, c.LogDirectory, c.StateDirectory} }
	if fixed(next) != fixed(s.config) {
		return Config{}, nil, errors.New("name, cgroup, log_directory and state_directory only change with a new supervisor")
	}
	netns, err := netnsIdentity(next.netnsPath())
	if err != nil || netns == s.spawner.netns {
		return next, s.spawner, err
	}
	// The old thread stays: its end would kill the children that still run there.
	spawner, err := newSpawner(next.netnsPath())
	return next, spawner, err
}

// report writes the status file. A disk that is full is tried again; it stops nothing.
func (s *supervisor) report() {
	status := Status{
		Name: s.config.Name, PID: os.Getpid(), Boot: bootID(), Started: s.started, Cgroups: s.cgroups,
		ConfigError: s.refused, Processes: []ProcessStatus{},
	}
	for _, configured := range s.config.Processes {
		p := s.processes[configured.Name]
		if p == nil {
			continue
		}
		now := ProcessStatus{Name: p.Name, State: p.state, Ticks: p.ticks, Restarts: p.restarts, LastExit: p.lastExit}
		if p.handle != nil {
			now.PID = p.handle.Pid
		}
		if !p.began.IsZero() {
			now.Started = &p.began
		}
		status.Processes = append(status.Processes, now)
	}
	content, err := json.MarshalIndent(status, "", "  ")
	if err == nil {
		err = writeAtomic(filepath.Join(s.config.StateDirectory, statusFile), append(content, '\n'))
	}
	s.stale = err != nil
}
