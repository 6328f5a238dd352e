package supervise

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	pidFile    = "supervisor.pid"
	lockFile   = "supervisor.lock"
	statusFile = "processes-status.json"
)

// Status is what processes-status.json says. A reader that finds no file, an empty one or a Boot that is not the
// machine's present one knows nothing of living processes.
type Status struct {
	Name    string    `json:"name"`
	PID     int       `json:"pid"`
	Boot    string    `json:"boot"`
	Started time.Time `json:"started"`
	Cgroups []string  `json:"cgroups"`
	// ConfigError says why the last reload changed nothing; empty when it did.
	ConfigError string          `json:"config_error"`
	Processes   []ProcessStatus `json:"processes"`
}

// ProcessStatus is one daemon in a Status.
type ProcessStatus struct {
	Name string `json:"name"`
	// State is running, waiting (for its restart), stopping or ended.
	State string `json:"state"`
	// PID is 0 when none runs; Ticks is its start time as in /proc/<pid>/stat, so that a number used again is told apart.
	PID      int        `json:"pid"`
	Ticks    uint64     `json:"ticks"`
	Started  *time.Time `json:"started"`
	Restarts int        `json:"restarts"`
	LastExit *Exit      `json:"last_exit"`
}

// Exit is how a daemon's last run ended: by itself with Code, by Signal, or never begun because of Error.
type Exit struct {
	Time   time.Time `json:"time"`
	Code   int       `json:"code"`
	Signal string    `json:"signal"`
	Error  string    `json:"error"`
}

func (e Exit) String() string {
	switch {
	case e.Error != "":
		return e.Error
	case e.Signal != "":
		return "signal " + e.Signal
	default:
		return "exit code " + strconv.Itoa(e.Code)
	}
}

// writeAtomic leaves either the old or the new content under path. It is not flushed to disk: after a loss of power
// the process numbers in these files mean nothing, and a slow disk must not hold up a restart.
func writeAtomic(path string, content []byte) error {
	temporary := path + ".new"
	if err := os.WriteFile(temporary, content, 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

// bootID tells one run of the machine from another; empty where the kernel does not say.
func bootID() string {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(raw))
}

// startTicks is when process pid began, in clock ticks after boot.
func startTicks(pid int) (uint64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the command in brackets, which may hold anything.
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat is too short", pid)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// lockState makes this process the state folder's only supervisor until it ends, however it ends.
func lockState(directory string) (*os.File, error) {
	path := filepath.Join(directory, lockFile)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		file.Close()
		holder, _ := os.ReadFile(filepath.Join(directory, pidFile))
		return nil, &runningError{directory, string(bytes.TrimSpace(holder))}
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("%s cannot be locked: %w", path, err)
	}
	return file, nil
}

// runningError is returned to whoever starts a second supervisor.
type runningError struct{ directory, pid string }

func (e *runningError) Error() string {
	return fmt.Sprintf("a supervisor already runs for %s (process %s); send it SIGHUP to read its configuration again", e.directory, e.pid)
}

// endPredecessors kills what a predecessor left behind and waits until it is gone, before anything is started. The
// parent-death signal has already been sent; this waits for it to take effect, and catches a process that escaped it.
func endPredecessors(directory string, patience time.Duration) error {
	raw, err := os.ReadFile(filepath.Join(directory, statusFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var status Status
	if json.Unmarshal(raw, &status) != nil || status.Boot != bootID() {
		return nil // another boot's, or not ours: it names no living process
	}
	for _, p := range status.Processes {
		if p.PID <= 0 {
			continue
		}
		if err := endProcess(p.PID, p.Ticks, patience); err != nil {
			return fmt.Errorf("%s (process %d) of an earlier supervisor does not end: %w", p.Name, p.PID, err)
		}
	}
	return nil
}

// endProcess kills process pid if it is still the one that began at ticks, and waits for its end.
func endProcess(pid int, ticks uint64, patience time.Duration) error {
	// The descriptor is taken before the check, so the number cannot pass to another process in between.
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if now, err := startTicks(pid); err != nil || now != ticks {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); errors.Is(err, unix.ESRCH) {
		return nil
	} else if err != nil {
		return err
	}
	deadline := time.Now().Add(patience)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(max(0, time.Until(deadline).Milliseconds())))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("it still lives %s after SIGKILL", patience)
		}
		return nil
	}
}
