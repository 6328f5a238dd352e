package supervise

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// spawner starts processes from one operating system thread that lives as long as this process does.
//
// Two things depend on the thread and not on the process: the network namespace that a child begins in, and the
// parent-death signal, which the kernel sends when the *thread* that forked ends. A goroutine that is free to change
// threads would start children in either namespace and have them killed when Go retires a thread.
type spawner struct {
	requests chan spawnRequest
	// netns identifies the namespace (device and inode), so that a recreated one is noticed.
	netns string
}

type spawnRequest struct {
	argv  []string
	env   []string
	out   *os.File
	reply chan<- spawnReply
}

type spawnReply struct {
	process *os.Process
	err     error
}

// newSpawner enters the namespace at path (empty: stays) on a thread of its own.
func newSpawner(path string) (*spawner, error) {
	s := &spawner{requests: make(chan spawnRequest)}
	var err error
	if s.netns, err = netnsIdentity(path); err != nil {
		return nil, err
	}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: see above
		err := enterNetns(path)
		ready <- err
		if err != nil {
			return
		}
		for request := range s.requests {
			process, err := start(request)
			request.reply <- spawnReply{process, err}
		}
	}()
	return s, <-ready
}

// start runs one command whose standard output and error are out.
func (s *spawner) start(argv, env []string, out *os.File) (*os.Process, error) {
	reply := make(chan spawnReply)
	s.requests <- spawnRequest{argv, env, out, reply}
	answer := <-reply
	return answer.process, answer.err
}

func start(request spawnRequest) (*os.Process, error) {
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer nothing.Close()
	return os.StartProcess(request.argv[0], request.argv, &os.ProcAttr{
		Dir:   "/",
		Env:   request.env,
		Files: []*os.File{nothing, request.out, request.out},
		Sys: &syscall.SysProcAttr{
			// A supervisor that is killed takes its children with it at once, so that its successor never starts a
			// second etcd beside a living one. They are built to be killed: etcd's log is replayed, containerd finds
			// its shims (no children of ours) again, and pods go on running meanwhile. Adopting them instead would
			// lose their output and exit status, and trust process numbers that may have been used again.
			Pdeathsig: syscall.SIGKILL,
			// A terminal's Ctrl-C is for the supervisor, which then ends them in order.
			Setpgid: true,
		},
	})
}

func enterNetns(path string) error {
	if path == "" {
		return nil
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("network namespace %s cannot be opened: %w", path, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("network namespace %s cannot be entered: %w", path, err)
	}
	return nil
}

func netnsIdentity(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return "", fmt.Errorf("network namespace %s cannot be found: %w", path, err)
	}
	return fmt.Sprintf("%d:%d", stat.Dev, stat.Ino), nil
}
