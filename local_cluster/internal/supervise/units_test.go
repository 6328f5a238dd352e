package supervise

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestLoadRefusesWhatCannotRun(t *testing.T) {
	cases := map[string]struct{ json, because string }{
		"no JSON":            {`{`, "not understood"},
		"unknown key":        {`{"proceses": []}`, `unknown field "proceses"`},
		"relative folder":    {`{"log_directory": "log", "state_directory": "/s"}`, "absolute paths"},
		"escaping cgroup":    {`{"log_directory": "/l", "state_directory": "/s", "cgroup": "../x"}`, "cgroup"},
		"odd netns":          {`{"log_directory": "/l", "state_directory": "/s", "netns": "a/b"}`, "netns"},
		"odd name":           {config(`{"name": "../etcd", "command": ["/bin/true"]}`), "lower case"},
		"twice":              {config(`{"name": "a", "command": ["/b"]}, {"name": "a", "command": ["/b"]}`), "named twice"},
		"no command":         {config(`{"name": "a"}`), "needs a command"},
		"relative command":   {config(`{"name": "a", "command": ["true"]}`), "absolute path"},
		"missing after":      {config(`{"name": "a", "command": ["/b"], "after": ["b"]}`), "waits for"},
		"waiting for itself": {config(`{"name": "a", "command": ["/b"], "after": ["a"]}`), "waits for"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "processes.json")
			if err := os.WriteFile(path, []byte(c.json), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Load(path)
			if err == nil || !strings.Contains(err.Error(), c.because) || !strings.Contains(err.Error(), path) {
				t.Fatalf("%v does not name %q and %s", err, c.because, path)
			}
		})
	}
}

func config(processes string) string {
	return `{"log_directory": "/l", "state_directory": "/s", "processes": [` + processes + `]}`
}

func TestLevelsFollowAfter(t *testing.T) {
	c := Config{Processes: []Process{
		{Name: "kubelet", After: []string{"api", "containerd"}}, {Name: "api", After: []string{"etcd"}}, {Name: "etcd"}, {Name: "containerd"},
	}}
	levels, err := c.levels()
	if err != nil {
		t.Fatal(err)
	}
	var names [][]string
	for _, level := range levels {
		var group []string
		for _, p := range level {
			group = append(group, p.Name)
		}
		names = append(names, group)
	}
	want := [][]string{{"etcd", "containerd"}, {"api"}, {"kubelet"}}
	if !reflect.DeepEqual(names, want) {
		t.Fatalf("%v, not %v", names, want)
	}
}

const hybrid = `30 1 254:0 / / rw,relatime - ext4 /dev/root rw
31 30 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
33 31 0:28 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
34 31 0:29 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
35 31 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup rw
36 30 0:27 / /mnt/cpu\040again rw,relatime - cgroup cgroup rw,cpu
`

func TestHierarchies(t *testing.T) {
	found, err := hierarchies(strings.NewReader(hybrid))
	if err != nil {
		t.Fatal(err)
	}
	want := []hierarchy{
		{mount: "/sys/fs/cgroup/cpu", controllers: []string{"cpu"}},
		{mount: "/sys/fs/cgroup/cpuset", controllers: []string{"cpuset"}},
		{mount: "/sys/fs/cgroup/systemd", controllers: []string{"name=systemd"}},
		{mount: "/sys/fs/cgroup/unified", unified: true},
	}
	if !reflect.DeepEqual(found, want) {
		t.Fatalf("%+v, not %+v", found, want)
	}
}

func TestJoinLeavesOutWhatCannotBeWritten(t *testing.T) {
	mount := t.TempDir()
	joined, skipped, err := joinCgroups([]hierarchy{
		{mount: mount, controllers: []string{"cpu"}},
		{mount: filepath.Join(mount, "missing"), controllers: []string{"pids"}},
	}, "cluster", 42)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{filepath.Join(mount, "cluster", "supervisor")}; !reflect.DeepEqual(joined, want) || len(skipped) != 1 {
		t.Fatalf("joined %v, skipped %v", joined, skipped)
	}
	if content, _ := os.ReadFile(filepath.Join(joined[0], "cgroup.procs")); string(content) != "42" {
		t.Fatalf("cgroup.procs holds %q", content)
	}
	if _, _, err := joinCgroups(nil, "cluster", 42); err == nil {
		t.Fatal("no hierarchy at all is no error")
	}
}

func TestCpusetIsInheritedOnce(t *testing.T) {
	parent, child := t.TempDir(), t.TempDir()
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		os.WriteFile(filepath.Join(parent, name), []byte("0-1\n"), 0o600) //nolint:errcheck // read below
		os.WriteFile(filepath.Join(child, name), []byte("\n"), 0o600)     //nolint:errcheck // read below
	}
	os.WriteFile(filepath.Join(child, "cpuset.cpus"), []byte("1\n"), 0o600) //nolint:errcheck // read below
	if err := inheritCpuset(parent, child); err != nil {
		t.Fatal(err)
	}
	cpus, _ := os.ReadFile(filepath.Join(child, "cpuset.cpus"))
	mems, _ := os.ReadFile(filepath.Join(child, "cpuset.mems"))
	if string(cpus) != "1\n" || string(mems) != "0-1" {
		t.Fatalf("cpus %q, mems %q", cpus, mems)
	}
}

func TestLogRotatesBetweenLinesAndKeepsOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etcd.log")
	log := newLogFile(path)
	log.limit = 100
	for _, text := range []string{"first", "second", "third"} {
		copyLines(log, strings.NewReader(strings.Repeat(text+"\n", 10)))
	}
	kept, _ := os.ReadFile(path + ".1")
	now, _ := os.ReadFile(path)
	if string(kept) != strings.Repeat("second\n", 10) || string(now) != strings.Repeat("third\n", 10) {
		t.Fatalf("kept %q, now %q", kept, now)
	}
}

func TestLogGoesOnAfterItCouldNotBeWritten(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "later")
	log := newLogFile(filepath.Join(directory, "etcd.log"))
	copyLines(log, strings.NewReader("lost\n"))
	if err := os.Mkdir(directory, 0o755); err != nil {
		t.Fatal(err)
	}
	copyLines(log, strings.NewReader("kept, without an end of line"))
	if content, _ := os.ReadFile(log.path); string(content) != "kept, without an end of line" {
		t.Fatalf("%q", content)
	}
}

func TestLongLinesPass(t *testing.T) {
	var log bytes.Buffer
	long := strings.Repeat("x", 3*lineLimit+1) + "\nshort\n"
	copyLines(&log, strings.NewReader(long))
	if log.String() != long {
		t.Fatalf("%d bytes of %d", log.Len(), len(long))
	}
}
