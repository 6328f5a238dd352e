package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const exampleFolder = "pvc-0b5ee4ba-6ad2-4b49-8f0e-5d5c1f1e1a11"

func newFolders(t *testing.T) *folders {
	t.Helper()
	f, err := openFolders(filepath.Join(t.TempDir(), "volumes"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.root.Close() })
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestMakeIsOpenToEveryUserWhateverTheUmask(t *testing.T) {
	f := newFolders(t)
	defer unix.Umask(unix.Umask(0o077))
	must(t, f.make(exampleFolder))
	information, err := os.Stat(f.location(exampleFolder))
	must(t, err)
	if information.Mode().Perm() != folderMode {
		t.Errorf("mode %o", information.Mode().Perm())
	}
	root, err := os.Stat(f.path)
	must(t, err)
	if root.Mode().Perm() != rootMode {
		t.Errorf("the root's mode is %o", root.Mode().Perm())
	}
}

func TestMakeFinishesAHalfMadeFolderAndLeavesAUsedOne(t *testing.T) {
	f := newFolders(t)
	must(t, os.Mkdir(f.location(exampleFolder), 0o700))
	must(t, f.make(exampleFolder))
	if information, _ := os.Stat(f.location(exampleFolder)); information.Mode().Perm() != folderMode {
		t.Errorf("half made: mode %o", information.Mode().Perm())
	}
	must(t, os.WriteFile(filepath.Join(f.location(exampleFolder), "data"), nil, 0o600))
	must(t, os.Chmod(f.location(exampleFolder), 0o750))
	must(t, f.make(exampleFolder))
	if information, _ := os.Stat(f.location(exampleFolder)); information.Mode().Perm() != 0o750 {
		t.Errorf("used: mode %o", information.Mode().Perm())
	}
}

func TestOtherNamesAreRefused(t *testing.T) {
	f := newFolders(t)
	outside := filepath.Join(filepath.Dir(f.path), "outside")
	must(t, os.Mkdir(outside, 0o700))
	for _, name := range []string{"../outside", "..", ".", "", "outside", exampleFolder + "/x", "PVC-x"} {
		if f.make(name) == nil || f.remove(context.Background(), name) == nil {
			t.Errorf("%q is taken", name)
		}
	}
	if !exists(outside) {
		t.Error("a folder outside is gone")
	}
}

func TestALinkInAFoldersPlaceIsNotFollowed(t *testing.T) {
	f := newFolders(t)
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "kept"), nil, 0o600))
	must(t, os.Symlink(outside, f.location(exampleFolder)))
	if f.make(exampleFolder) == nil {
		t.Error("a volume was made of a link")
	}
	must(t, f.remove(context.Background(), exampleFolder))
	if exists(f.location(exampleFolder)) || !exists(filepath.Join(outside, "kept")) {
		t.Error("the link is there, or what it led to is not")
	}
}

func TestRemoveDeletesEverythingAndNothingElse(t *testing.T) {
	f := newFolders(t)
	must(t, f.make(exampleFolder))
	folder := f.location(exampleFolder)
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "kept"), []byte("precious"), 0o600))

	must(t, os.MkdirAll(filepath.Join(folder, "a", "b", "c"), 0o700))
	must(t, os.WriteFile(filepath.Join(folder, "a", ".hidden"), nil, 0o400))
	must(t, os.WriteFile(filepath.Join(folder, "a", "line\nbreak"), nil, 0o400))
	must(t, os.Symlink(outside, filepath.Join(folder, "a", "to-folder")))
	must(t, os.Symlink(filepath.Join(outside, "kept"), filepath.Join(folder, "to-file")))
	must(t, os.Symlink("..", filepath.Join(folder, "up")))
	must(t, os.Symlink("/", filepath.Join(folder, "root")))
	must(t, os.Link(filepath.Join(outside, "kept"), filepath.Join(folder, "hard")))
	must(t, unix.Mkfifo(filepath.Join(folder, "pipe"), 0o600))
	must(t, os.Chmod(filepath.Join(folder, "a", "b"), 0o700))
	for i := range 1500 { // more than one reading of the folder
		must(t, os.WriteFile(filepath.Join(folder, "a", fmt.Sprint(i)), nil, 0o600))
	}
	must(t, f.remove(context.Background(), exampleFolder))
	if exists(folder) {
		t.Error("the folder is there")
	}
	if content, _ := os.ReadFile(filepath.Join(outside, "kept")); string(content) != "precious" {
		t.Error("a file outside is gone or changed")
	}
	must(t, f.remove(context.Background(), exampleFolder)) // again, as after an interruption
}

func TestRemoveCopesWithAnyDepth(t *testing.T) {
	f := newFolders(t)
	must(t, f.make(exampleFolder))
	fd, err := unix.Open(f.location(exampleFolder), unix.O_DIRECTORY|unix.O_RDONLY, 0)
	must(t, err)
	must(t, os.Mkdir(filepath.Join(f.location(exampleFolder), "moved-up-1"), 0o700)) // a name that is taken
	for range 3000 {                                                                 // a path far longer than any call takes
		must(t, unix.Mkdirat(fd, "deeper", 0o700))
		next, err := unix.Openat(fd, "deeper", unix.O_DIRECTORY|unix.O_RDONLY, 0)
		must(t, err)
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	must(t, f.remove(context.Background(), exampleFolder))
	if exists(f.location(exampleFolder)) {
		t.Error("the folder is there")
	}
}

func TestRemoveStopsWhenToldToAndGoesOnLater(t *testing.T) {
	f := newFolders(t)
	must(t, f.make(exampleFolder))
	must(t, os.WriteFile(filepath.Join(f.location(exampleFolder), "data"), nil, 0o600))
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if err := f.remove(ctx, exampleFolder); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	must(t, f.remove(context.Background(), exampleFolder))
	if exists(f.location(exampleFolder)) {
		t.Error("the folder is there")
	}
}

func TestRemoveStopsAtAMount(t *testing.T) {
	f := newFolders(t)
	must(t, f.make(exampleFolder))
	outside, inside := t.TempDir(), filepath.Join(f.location(exampleFolder), "mounted")
	must(t, os.WriteFile(filepath.Join(outside, "kept"), nil, 0o600))
	must(t, os.Mkdir(inside, 0o700))
	if err := unix.Mount(outside, inside, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("nothing can be mounted here: %v", err)
	}
	err := f.remove(context.Background(), exampleFolder)
	must(t, unix.Unmount(inside, 0))
	if err == nil || !strings.Contains(err.Error(), "mounted on it") || !exists(filepath.Join(outside, "kept")) {
		t.Errorf("%v", err)
	}
	must(t, f.remove(context.Background(), exampleFolder))
}

func TestOnlyEmptyFoldersAreRemovedAsUnused(t *testing.T) {
	f := newFolders(t)
	other := "pvc-11111111-6ad2-4b49-8f0e-5d5c1f1e1a11"
	must(t, f.make(exampleFolder))
	must(t, f.make(other))
	must(t, os.Mkdir(filepath.Join(f.path, "lost+found"), 0o700))
	must(t, os.WriteFile(filepath.Join(f.location(other), "data"), nil, 0o600))
	names, err := f.list()
	must(t, err)
	if len(names) != 2 {
		t.Errorf("%v", names)
	}
	for name, want := range map[string]bool{exampleFolder: true, other: false} {
		if removed, err := f.removeIfEmpty(name); removed != want || err != nil {
			t.Errorf("%s: %t, %v", name, removed, err)
		}
	}
}
