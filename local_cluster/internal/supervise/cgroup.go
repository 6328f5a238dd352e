package supervise

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// leaf is the folder that the supervisor and its children share. Under cgroup v2 a folder that hands controllers to its
// children (kubelet's pods) may hold no process itself, so the daemons sit beside the pods and not above them.
const leaf = "supervisor"

// hierarchy is one mounted control group hierarchy.
type hierarchy struct {
	mount       string
	unified     bool
	controllers []string
}

// hierarchies reads them from /proc/self/mountinfo; of one hierarchy mounted more than once the first counts.
func hierarchies(mountinfo io.Reader) ([]hierarchy, error) {
	var found []hierarchy
	seen := map[string]bool{}
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		h := hierarchy{mount: unescape(left[4])}
		switch right[0] {
		case "cgroup2":
			h.unified = true
		case "cgroup":
			for option := range strings.SplitSeq(right[2], ",") {
				if option != "rw" && option != "ro" {
					h.controllers = append(h.controllers, option)
				}
			}
		default:
			continue
		}
		identity := right[0] + " " + strings.Join(h.controllers, ",")
		if !seen[identity] {
			seen[identity] = true
			found = append(found, h)
		}
	}
	return found, lines.Err()
}

// unescape undoes the octal escapes that mountinfo uses for blanks.
func unescape(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}

// joinCgroups puts process pid into <mount>/<folder>/supervisor of every hierarchy that can be written and returns the
// folders joined, and a sentence for each hierarchy left out. It is an error when none could be joined.
func joinCgroups(found []hierarchy, folder string, pid int) (joined, skipped []string, err error) {
	pure := !slices.ContainsFunc(found, func(h hierarchy) bool { return !h.unified && len(h.controllers) > 0 })
	for _, h := range found {
		path, err := h.join(folder, pid, pure)
		if err != nil {
			skipped = append(skipped, fmt.Sprintf("control group hierarchy %s is left out: %v", h.mount, err))
			continue
		}
		joined = append(joined, path)
	}
	if len(joined) == 0 {
		return nil, skipped, fmt.Errorf("no control group hierarchy could be joined as %s: %s", folder, strings.Join(skipped, "; "))
	}
	return joined, skipped, nil
}

func (h hierarchy) join(folder string, pid int, pure bool) (string, error) {
	path := h.mount
	if h.unified && pure {
		if err := delegate(path); err != nil {
			return "", err
		}
	}
	for part := range strings.SplitSeq(filepath.Join(folder, leaf), "/") {
		parent := path
		path = filepath.Join(path, part)
		if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return "", err
		}
		if slices.Contains(h.controllers, "cpuset") {
			if err := inheritCpuset(parent, path); err != nil {
				return "", err
			}
		}
		if h.unified && pure && part != leaf {
			if err := delegate(path); err != nil {
				return "", err
			}
		}
	}
	return path, os.WriteFile(filepath.Join(path, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

// inheritCpuset copies what a new v1 cpuset folder lacks: with no processors or memory nodes it takes no process.
func inheritCpuset(parent, path string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(path, name))
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(own)) > 0 {
			continue
		}
		above, err := os.ReadFile(filepath.Join(parent, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(path, name), bytes.TrimSpace(above), 0); err != nil {
			return err
		}
	}
	return nil
}

// delegate hands every controller that a v2 folder has to its children, as kubelet needs them for pods.
func delegate(path string) error {
	available, err := os.ReadFile(filepath.Join(path, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for controller := range strings.FieldsSeq(string(available)) {
		err := os.WriteFile(filepath.Join(path, "cgroup.subtree_control"), []byte("+"+controller), 0)
		if errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("processes sit in %s itself, so its controllers cannot be handed on; move them to a folder below it", path)
		}
		// A controller that cannot be handed on (cpu with realtime processes about) is not missed by every pod.
	}
	return nil
}
