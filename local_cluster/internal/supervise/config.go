package supervise

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// Config is what processes.json says: one cluster's daemons and where they live.
type Config struct {
	// Name is the cluster's name; it only appears in messages and in the status file.
	Name string `json:"name"`
	// Cgroup is the cluster's folder in every control group hierarchy ("groundwork-1a2b3c"); empty: stay where we are.
	Cgroup string `json:"cgroup"`
	// Netns is a network namespace: a name below /run/netns or an absolute path; empty: the supervisor's own.
	Netns string `json:"netns"`
	// LogDirectory takes <process>.log, and <process>.log.1 after a rotation.
	LogDirectory string `json:"log_directory"`
	// StateDirectory takes the lock, supervisor.pid and processes-status.json.
	StateDirectory string `json:"state_directory"`
	// Processes are started in the order of their After, and ended in the reverse of it.
	Processes []Process `json:"processes"`
}

// Process is one daemon.
type Process struct {
	Name    string   `json:"name"`
	Command []string `json:"command"`
	// Env is the whole environment beside PATH, HOME and LANG: nothing of the caller's reaches a daemon.
	Env map[string]string `json:"env"`
	// After names processes to be started before this one. Nobody waits for them to be ready.
	After []string `json:"after"`
	// RestartSeconds is the first pause before a restart (default 1); it doubles up to 15 s with each further one.
	RestartSeconds float64 `json:"restart_seconds"`
}

// restartAfter is the pause before the first restart.
func (p Process) restartAfter() time.Duration {
	if p.RestartSeconds <= 0 {
		return time.Second
	}
	return min(time.Duration(p.RestartSeconds*float64(time.Second)), longestPause)
}

// sameRun says whether a running p serves as well as a newly started other.
func (p Process) sameRun(other Process) bool {
	return slices.Equal(p.Command, other.Command) && maps.Equal(p.Env, other.Env)
}

var processName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

// Load reads and checks a configuration; it refuses what it does not know, so that a misspelt key is not lost.
func Load(path string) (Config, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("the configuration cannot be read: %w", err)
	}
	var config Config
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&config); err != nil {
		return Config{}, fmt.Errorf("the configuration %s is not understood: %w", path, err)
	}
	if err := config.check(); err != nil {
		return Config{}, fmt.Errorf("the configuration %s is refused: %w", path, err)
	}
	return config, nil
}

func (c Config) check() error {
	if !filepath.IsAbs(c.LogDirectory) || !filepath.IsAbs(c.StateDirectory) {
		return errors.New("log_directory and state_directory must be absolute paths")
	}
	if c.Cgroup != "" && !filepath.IsLocal(c.Cgroup) {
		return fmt.Errorf("cgroup %q must be a relative path below the top of a hierarchy", c.Cgroup)
	}
	if c.Netns != "" && !filepath.IsAbs(c.Netns) && c.Netns != filepath.Base(c.Netns) {
		return fmt.Errorf("netns %q must be a name or an absolute path", c.Netns)
	}
	seen := map[string]bool{}
	for _, p := range c.Processes {
		if !processName.MatchString(p.Name) {
			return fmt.Errorf("process name %q must be lower case letters, digits and dashes", p.Name)
		}
		if seen[p.Name] {
			return fmt.Errorf("process %s is named twice", p.Name)
		}
		seen[p.Name] = true
		if len(p.Command) == 0 || !filepath.IsAbs(p.Command[0]) {
			return fmt.Errorf("process %s needs a command that begins with an absolute path", p.Name)
		}
	}
	_, err := c.levels()
	return err
}

// levels groups the processes by After: each level needs only levels before it.
func (c Config) levels() ([][]Process, error) {
	waiting := slices.Clone(c.Processes)
	started := map[string]bool{}
	var levels [][]Process
	for len(waiting) > 0 {
		var level, rest []Process
		for _, p := range waiting {
			if slices.ContainsFunc(p.After, func(name string) bool { return !started[name] }) {
				rest = append(rest, p)
			} else {
				level = append(level, p)
			}
		}
		if len(level) == 0 {
			return nil, fmt.Errorf("process %s waits for processes that are missing or wait for it: %v", rest[0].Name, rest[0].After)
		}
		for _, p := range level {
			started[p.Name] = true
		}
		levels = append(levels, level)
		waiting = rest
	}
	return levels, nil
}

// netnsPath is where the namespace is to be opened; empty: none is wanted.
func (c Config) netnsPath() string {
	if c.Netns == "" || filepath.IsAbs(c.Netns) {
		return c.Netns
	}
	return filepath.Join("/run/netns", c.Netns)
}
