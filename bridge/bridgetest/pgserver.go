package bridgetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// server is a PostgreSQL server of our own. It listens on a Unix socket in a folder that only its user can enter, keeps nothing for
// after a crash, and ends when the process that started it ends (see sysProcAttr).
type server struct {
	dir        string // holds data/, the socket, the log and the lock file
	lock       *os.File
	credential *syscall.Credential // nil: runs as ourselves
	process    *os.Process
	ended      chan struct{} // closed when the process is gone
	settings   []string      // after the usual ones
}

const (
	// Not os.TempDir: the path of a Unix socket may have 107 bytes, and the TMPDIR of root may be closed to others.
	serverDirs = "/tmp/bridgetest-pg-"
	// A server's folder is in use as long as this file in it is locked; the kernel unlocks it when its owner dies.
	lockFile = "owner.lock"
)

// startServer starts a server with these settings. fill makes its data directory; nil is a new, empty one.
func startServer(ctx context.Context, fill func(*server) error, settings ...string) (_ *server, err error) {
	removeStaleServers()
	s := &server{ended: make(chan struct{}), settings: settings}
	if s.credential, err = unprivileged(); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp(filepath.Split(serverDirs)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	if s.lock, err = lockDir(s.dir); err != nil {
		return nil, err
	}
	if s.credential != nil {
		if err := os.Chown(s.dir, int(s.credential.Uid), int(s.credential.Gid)); err != nil {
			return nil, err
		}
	}
	bin, err := binaries(s.dir)
	if err != nil {
		return nil, err
	}
	if fill == nil {
		fill = func(s *server) error { return s.initdb(ctx, bin) }
	}
	if err := fill(s); err != nil {
		return nil, err
	}
	if err := s.start(ctx, bin); err != nil {
		return nil, err
	}
	return s, nil
}

// unprivileged returns whom to run PostgreSQL as: nil is ourselves; root, which PostgreSQL refuses, becomes postgres or else nobody.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(errUID, errGID)
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody")
}

func (s *server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = s.dir // the user postgres may not be allowed to enter ours
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = sysProcAttr(s.credential)
	return cmd
}

func (s *server) initdb(ctx context.Context, bin string) error {
	// As in start, the forking thread has to outlive the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out, err := s.command(ctx, filepath.Join(bin, "initdb"), "--pgdata="+filepath.Join(s.dir, "data"), "--username=postgres",
		"--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions").CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb in %s: %w\n%s", bin, err, out)
	}
	return nil
}

func (s *server) start(ctx context.Context, bin string) error {
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"-D", filepath.Join(s.dir, "data"), "-k", s.dir, "-p", serverPort}
	for _, setting := range append([]string{
		"listen_addresses=", "unix_socket_permissions=0700", "max_connections=300",
		"fsync=off", "synchronous_commit=off", "full_page_writes=off", "wal_level=minimal", "max_wal_senders=0",
		"autovacuum=off", // a worker in the template would make CREATE DATABASE wait for it
	}, s.settings...) {
		args = append(args, "-c", setting)
	}
	cmd := s.command(context.WithoutCancel(ctx), filepath.Join(bin, "postgres"), args...)
	cmd.Stdout, cmd.Stderr = log, log
	started := make(chan error)
	go func() {
		// Linux sends Pdeathsig when the *thread* that forked ends, so this goroutine keeps its thread until the server is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		s.process = cmd.Process
		started <- err
		if err == nil {
			cmd.Wait() // how it ended is in its log
			close(s.ended)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("starting postgres: %w", err)
	}
	return s.waitReady(ctx)
}

const serverPort = "5432" // names the socket, nothing else

func (s *server) url() *url.URL {
	query := url.Values{"host": {s.dir}, "port": {serverPort}}
	return &url.URL{Scheme: "postgres", User: url.User("postgres"), Path: "/postgres", RawQuery: query.Encode()}
}

func (s *server) waitReady(ctx context.Context) error {
	for {
		conn, err := pgx.Connect(ctx, s.url().String())
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-s.ended:
			return fmt.Errorf("postgres did not start:\n%s", s.logTail())
		case <-ctx.Done():
			return fmt.Errorf("postgres is not ready: %w\n%s", err, s.logTail())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (s *server) logTail() []byte {
	text, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return []byte(err.Error())
	}
	return bytes.TrimSpace(text[max(0, len(text)-4096):])
}

// stop ends the server at once, without a checkpoint, and removes its folder.
func (s *server) stop() error {
	if s.process != nil {
		if err := s.process.Signal(syscall.SIGQUIT); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stopping postgres: %w", err)
		}
		<-s.ended
	}
	err := os.RemoveAll(s.dir)
	if s.lock != nil {
		s.lock.Close()
	}
	return err
}

// lockDir puts a locked lock file into dir. The file gets its name only when it is locked, so that no other process finds it unlocked
// and takes the folder for a stale one.
func lockDir(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, lockFile)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, lockFile)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// removeStaleServers removes the folders of processes that were killed. What cannot be removed now is left to the next start.
func removeStaleServers() {
	dirs, _ := filepath.Glob(serverDirs + "*")
	for _, dir := range dirs {
		if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
			continue
		}
		f, err := os.Open(filepath.Join(dir, lockFile))
		if err != nil {
			continue
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			// The data first, the lock file with the rest: a server that is still going down may write until it is gone.
			if os.RemoveAll(filepath.Join(dir, "data")) == nil {
				os.RemoveAll(dir)
			}
		}
		f.Close()
	}
}
