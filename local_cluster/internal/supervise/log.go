package supervise

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

const (
	logLimit  = 20 << 20 // bytes in a log before it is rotated
	lineLimit = 64 << 10 // a longer line may be cut by a rotation
)

// logFile is a log that keeps one predecessor, <path>.1. It is written by a pipe's reader and by the supervisor.
//
// A disk that is full must not stop a daemon, which would block on a pipe that nobody reads: what cannot be written is
// dropped, and the next write tries again.
type logFile struct {
	mutex sync.Mutex
	path  string
	limit int64
	file  *os.File
	size  int64
}

func newLogFile(path string) *logFile {
	return &logFile{path: path, limit: logLimit}
}

// Write appends whole lines and rotates before them; it never fails.
func (l *logFile) Write(lines []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.file != nil && l.size > 0 && l.size+int64(len(lines)) > l.limit {
		l.close()
		os.Rename(l.path, l.path+".1") //nolint:errcheck // then it grows on
	}
	if l.file == nil && !l.open() {
		return len(lines), nil
	}
	n, err := l.file.Write(lines)
	l.size += int64(n)
	if err != nil {
		l.close()
	}
	return len(lines), nil
}

// Printf appends one line of the supervisor's own, told apart by its beginning.
func (l *logFile) Printf(format string, values ...any) {
	fmt.Fprintf(l, "%s supervise: %s\n", time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), fmt.Sprintf(format, values...))
}

func (l *logFile) open() bool {
	file, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return false
	}
	if information, err := file.Stat(); err == nil {
		l.size = information.Size()
	}
	l.file = file
	return true
}

func (l *logFile) close() {
	l.file.Close()
	l.file = nil
}

// copyLines moves what a daemon writes into its log, by whole lines, until the pipe ends.
func copyLines(log io.Writer, pipe io.Reader) {
	buffer := make([]byte, 0, lineLimit)
	for {
		n, err := pipe.Read(buffer[len(buffer):cap(buffer)])
		buffer = buffer[:len(buffer)+n]
		whole := bytes.LastIndexByte(buffer, '\n') + 1
		if whole == 0 && (len(buffer) == cap(buffer) || err != nil) {
			whole = len(buffer)
		}
		if whole > 0 {
			log.Write(buffer[:whole]) //nolint:errcheck // never fails
			buffer = buffer[:copy(buffer, buffer[whole:])]
		}
		if err != nil {
			if len(buffer) > 0 {
				log.Write(buffer) //nolint:errcheck // never fails
			}
			return
		}
	}
}
