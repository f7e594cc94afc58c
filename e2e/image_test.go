package e2e

import (
	"debug/elf"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// An image is what the Dockerfile makes of this checkout: a folder, and settings. No container engine runs where this project is built, so
// this one reads the Dockerfile with BuildKit's parser and carries out its instructions. In place of a base image it has this machine.
type image struct {
	Root            string // its files
	Scratch         bool
	Workdir         string
	Env             map[string]string
	User            string
	Health          []string
	Entrypoint, Cmd []string
}

// buildArgs are --build-arg, and what BuildKit itself sets.
var buildArgs = map[string]string{"VERSION": "1.2.3-e2e", "TARGETOS": "linux", "TARGETARCH": runtime.GOARCH}

func buildImage(t *testing.T) *image {
	t.Helper()
	file, err := os.Open("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	parsed, err := parser.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	lint := linter.New(&linter.Config{Warn: func(rule, _, _, message string, at []parser.Range) {
		t.Errorf("Dockerfile:%d: %s: %s", at[0].Start.Line, rule, message)
	}})
	stages, _, err := instructions.Parse(parsed.AST, lint)
	if err != nil {
		t.Fatal(err)
	}
	built := map[string]*image{}
	var last *image
	for _, stage := range stages {
		last = &image{Root: t.TempDir(), Scratch: stage.BaseName == "scratch", Workdir: "/", Env: map[string]string{}}
		for _, command := range stage.Commands {
			last.carryOut(t, command, built)
		}
		built[stage.Name] = last
	}
	return last
}

func (i *image) carryOut(t *testing.T, command instructions.Command, built map[string]*image) {
	t.Helper()
	switch c := command.(type) {
	case *instructions.WorkdirCommand:
		i.Workdir = c.Path
		if err := os.MkdirAll(filepath.Join(i.Root, c.Path), 0o755); err != nil {
			t.Fatal(err)
		}
	case *instructions.ArgCommand:
		for _, arg := range c.Args {
			if value, set := buildArgs[arg.Key]; set {
				i.Env[arg.Key] = value
			} else {
				t.Fatalf("%s: the test has no value", c)
			}
		}
	case *instructions.EnvCommand:
		for _, variable := range c.Env {
			i.Env[variable.Key] = variable.Value
		}
	case *instructions.CopyCommand:
		for _, source := range c.SourcePaths {
			i.copy(t, built[c.From], source, c.DestPath)
		}
	case *instructions.RunCommand:
		run := exec.Command("/bin/sh", "-c", strings.Join(c.CmdLine, " "))
		run.Dir = filepath.Join(i.Root, i.Workdir)
		run.Env = append(os.Environ(), i.environment()...)
		if said, err := run.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", c, err, said)
		}
	case *instructions.UserCommand:
		i.User = c.User
	case *instructions.HealthCheckCommand:
		i.Health = c.Health.Test
	case *instructions.EntrypointCommand:
		i.Entrypoint = c.CmdLine
	case *instructions.CmdCommand:
		i.Cmd = c.CmdLine
	case *instructions.LabelCommand, *instructions.ExposeCommand: // for people
	default:
		t.Fatalf("the test cannot do this: %s", c)
	}
}

// copy is COPY, from the checkout when there is no other stage.
func (i *image) copy(t *testing.T, from *image, source, to string) {
	t.Helper()
	if !filepath.IsAbs(to) {
		to = filepath.Join(i.Workdir, to) + to[len(strings.TrimRight(to, "/")):]
	}
	base, wanted := "..", dockerContext(t)
	if from != nil {
		base, wanted = from.Root, func(string) bool { return true }
		if _, err := os.Stat(filepath.Join(base, source)); err != nil && !from.Scratch {
			base = "/" // a file of the base image
		}
	}
	files := 0
	err := filepath.WalkDir(filepath.Join(base, source), func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(base, name)
		if err != nil || !wanted(below) && below != "." {
			if d.IsDir() {
				return fs.SkipDir
			}
			return err
		}
		if d.IsDir() {
			return nil
		}
		files++
		target := filepath.Join(i.Root, to, strings.TrimPrefix(below, filepath.Clean(source)+"/"))
		if strings.HasSuffix(to, "/") && strings.HasSuffix(name, filepath.Clean(source)) {
			target = filepath.Join(i.Root, to, filepath.Base(source))
		}
		return copyFile(name, target)
	})
	if err != nil || files == 0 {
		t.Fatalf("COPY %s %s: %d files, error %v", source, to, files, err)
	}
}

func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	about, err := os.Stat(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, text, about.Mode())
}

// dockerContext tells which files of the checkout a build can see.
func dockerContext(t *testing.T) func(name string) bool {
	t.Helper()
	file, err := os.Open("../.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	patterns, err := ignorefile.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	ignored, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return func(name string) bool {
		hidden, err := ignored.MatchesOrParentMatches(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range ignored.Patterns() { // a folder on the way to what is not hidden
			hidden = hidden && !(p.Exclusion() && strings.HasPrefix(p.String(), name+"/"))
		}
		return !hidden
	}
}

func (i *image) environment() (list []string) {
	for _, name := range slices.Sorted(maps.Keys(i.Env)) {
		list = append(list, name+"="+i.Env[name])
	}
	return list
}

// command is a program of the image as a container runs it: it sees the image's files alone, and is who the image says. (Without root, it is
// who we are.)
func (i *image) command(t *testing.T, argv, env []string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = i.Workdir, append(i.environment(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: i.Root}
	if os.Getuid() == 0 {
		user, group, _ := strings.Cut(i.User, ":")
		uid, err := strconv.ParseUint(user, 10, 32)
		if err != nil {
			t.Fatalf("USER %s: %v", i.User, err)
		}
		gid, err := strconv.ParseUint(group, 10, 32)
		if err != nil {
			t.Fatalf("USER %s: %v", i.User, err)
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return cmd
}

// wantImage holds the image to what the README says of it.
func wantImage(t *testing.T, i *image) {
	t.Helper()
	var files []string
	var size int64
	err := filepath.WalkDir(i.Root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		about, err := d.Info()
		if err != nil {
			return err
		}
		files, size = append(files, strings.TrimPrefix(name, i.Root)), size+about.Size()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"/etc/ssl/certs/ca-certificates.crt", "/oidc-bridge"}; !slices.Equal(files, want) {
		t.Errorf("the image has the files %q, want %q", files, want)
	}
	if size > 30<<20 {
		t.Errorf("the image has %d bytes, more than 30 MB", size)
	}
	t.Logf("%.1f MB", float64(size)/(1<<20))
	program, err := elf.Open(filepath.Join(i.Root, "oidc-bridge"))
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if libraries, err := program.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Errorf("it needs %q, error %v", libraries, err)
	}
	if program.Section(".debug_info") != nil {
		t.Error("it has debug information")
	}
	if user, _, _ := strings.Cut(i.User, ":"); user == "0" {
		t.Error("it runs as root")
	}
	if said, code := run(t, i.command(t, append(slices.Clone(i.Entrypoint), "version"), nil)); code != 0 || said != fmt.Sprintf("oidc-bridge %s\n", buildArgs["VERSION"]) {
		t.Errorf("version: exit code %d: %s", code, said)
	}
	if said, code := run(t, i.command(t, i.Health[1:], nil)); code != 1 || !strings.Contains(said, "config.yaml: error: there is no such file") {
		t.Errorf("%q without a configuration: exit code %d: %s", i.Health, code, said)
	}
}
