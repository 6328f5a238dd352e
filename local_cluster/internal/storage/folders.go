package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// folderMode lets a pod of any user and group write, with fsGroup or without, as hostPath users know it. What keeps
	// the machine's other users out is the root folder's mode.
	folderMode = 0o777
	rootMode   = 0o700

	// deepest is how far folders are followed; what lies deeper is first moved up. A pod may nest them without limit,
	// and each one that is being emptied holds a file descriptor.
	deepest = 64
)

// folderName is what the folder of a provisioned volume is called; nothing else in the root is ever touched.
var folderName = regexp.MustCompile(`^pvc-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// folders are the volumes' folders below one root. Everything is done through the root's descriptor, so that nothing a
// pod left behind (a symbolic link, a mount) leads out of it.
type folders struct {
	path string
	root *os.File
}

// openFolders makes the root if it is not there.
func openFolders(root string) (*folders, error) {
	if err := os.MkdirAll(root, rootMode); err != nil {
		return nil, err
	}
	file, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	return &folders{path: root, root: file}, nil
}

// location is where a volume's folder is.
func (f *folders) location(name string) string {
	return path.Join(f.path, name)
}

// make brings a volume's folder into being; one that an interrupted run left half made is finished, one that holds
// something already is left as it is.
func (f *folders) make(name string) error {
	if !folderName.MatchString(name) {
		return fmt.Errorf("%q is no name of a volume's folder", name)
	}
	if err := unix.Mkdirat(f.fd(), name, rootMode); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("folder %s cannot be made: %w", f.location(name), err)
	}
	folder, err := openBelow(f.fd(), name)
	if err != nil {
		return fmt.Errorf("folder %s cannot be opened: %w", f.location(name), err)
	}
	defer folder.Close()
	if _, err := folder.Readdirnames(1); err == nil {
		return nil
	} else if !errors.Is(err, io.EOF) {
		return fmt.Errorf("folder %s cannot be read: %w", f.location(name), err)
	}
	if err := folder.Chmod(folderMode); err != nil { // whatever our umask is
		return err
	}
	return f.root.Sync() // or a volume that the API knows could lose its folder with the machine's power
}

// remove deletes a volume's folder and what it holds. It can be interrupted and begun again.
func (f *folders) remove(ctx context.Context, name string) error {
	if !folderName.MatchString(name) {
		return fmt.Errorf("%q is no name of a volume's folder", name)
	}
	return (&cleaner{ctx: ctx, base: f.path}).remove(f.root, name, f.location(name))
}

// list names the volumes' folders that are there.
func (f *folders) list() ([]string, error) {
	listing, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer listing.Close()
	names, err := listing.Readdirnames(-1)
	return slices.DeleteFunc(names, func(name string) bool { return !folderName.MatchString(name) }), err
}

// removeIfEmpty deletes a volume's folder that holds nothing, and says whether it did.
func (f *folders) removeIfEmpty(name string) (bool, error) {
	err := unix.Unlinkat(f.fd(), name, unix.AT_REMOVEDIR)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

func (f *folders) fd() int { return int(f.root.Fd()) }

// openBelow opens a folder for reading: no symbolic link, no mount point, nothing above the folder it is in.
func openBelow(fd int, name string) (*os.File, error) {
	below, err := unix.Openat2(fd, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
	if errors.Is(err, unix.EXDEV) {
		return nil, errors.New("something is mounted on it")
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(below), name), nil
}

// cleaner is one removal.
type cleaner struct {
	ctx   context.Context
	base  string
	top   *os.File // the volume's own folder
	depth int
	moved int
}

// remove deletes name, whatever it is, from the folder parent; where is its path, for messages.
func (c *cleaner) remove(parent *os.File, name, where string) error {
	fd := int(parent.Fd())
	for {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		err := unix.Unlinkat(fd, name, 0)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		refusal := fmt.Errorf("%s cannot be removed: %w", where, err)
		if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
			return refusal
		}
		folder, err := openBelow(fd, name)
		switch {
		case errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP):
			return refusal // no folder, so the first refusal was about what it is
		case err != nil:
			return fmt.Errorf("%s cannot be removed: %w", where, err)
		}
		moved, err := c.empty(parent, folder, name, where)
		folder.Close()
		if err != nil {
			return err
		}
		if moved {
			return nil
		}
		err = unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("%s cannot be removed: %w", where, err)
		}
		// Something was put there meanwhile: once more.
	}
}

// empty deletes what a folder holds, or moves the folder up to the volume's own if it lies too deep.
func (c *cleaner) empty(parent, folder *os.File, name, where string) (moved bool, err error) {
	if c.depth == 0 {
		c.top = folder
	}
	if c.depth >= deepest {
		return true, c.moveUp(parent, name, where)
	}
	c.depth++
	defer func() { c.depth-- }()
	for {
		// Names only: asking for more would look them up by path.
		names, err := folder.Readdirnames(512)
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("%s cannot be read: %w", where, err)
		}
		for _, below := range names {
			if err := c.remove(folder, below, path.Join(where, below)); err != nil {
				return false, err
			}
		}
		// From the start again, for what was skipped as the folder shrank and what was moved up into it.
		if _, err := folder.Seek(0, io.SeekStart); err != nil {
			return false, err
		}
	}
}

func (c *cleaner) moveUp(parent *os.File, name, where string) error {
	for {
		c.moved++
		err := unix.Renameat2(int(parent.Fd()), name, int(c.top.Fd()), "moved-up-"+strconv.Itoa(c.moved), unix.RENAME_NOREPLACE)
		if err == nil || !errors.Is(err, unix.EEXIST) {
			if err != nil {
				return fmt.Errorf("%s cannot be moved up: %w", where, err)
			}
			return nil
		}
	}
}
