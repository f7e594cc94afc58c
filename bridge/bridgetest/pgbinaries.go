package bridgetest

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// binaries returns a folder that holds initdb and postgres. If the machine has none, they are fetched into dir.
func binaries(dir string) (string, error) {
	bin, err := localBinaries()
	if bin != "" || err != nil {
		return bin, err
	}
	if bin, err = fetchBinaries(dir); err != nil {
		return "", fmt.Errorf("no PostgreSQL: $DATABASE_URL and $PG_BINDIR are not set, initdb is neither on PATH nor in "+
			"/usr/lib/postgresql/*/bin, and fetching it failed (%w). Install it, for example with: apt-get install postgresql", err)
	}
	return bin, nil
}

// localBinaries returns "" when there are none. A $PG_BINDIR without them is an error: it was meant to be used.
func localBinaries() (string, error) {
	if bin := os.Getenv("PG_BINDIR"); bin != "" {
		if !hasServer(bin) {
			return "", fmt.Errorf("$PG_BINDIR: %s does not hold initdb and postgres", bin)
		}
		return bin, nil
	}
	if initdb, err := exec.LookPath("initdb"); err == nil {
		// Packages link single programs into PATH; initdb itself looks for postgres beside the real file.
		if initdb, err = filepath.EvalSymlinks(initdb); err == nil && hasServer(filepath.Dir(initdb)) {
			return filepath.Dir(initdb), nil
		}
	}
	newest, newestVersion := "", 0
	debian, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	for _, bin := range debian {
		version, err := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
		if err == nil && version > newestVersion && hasServer(bin) {
			newest, newestVersion = bin, version
		}
	}
	return newest, nil
}

func hasServer(bin string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if info, err := os.Stat(filepath.Join(bin, name)); err != nil || info.IsDir() {
			return false
		}
	}
	return true
}

// fetchBinaries lets the library embedded-postgres download and extract its binaries into dir. The archive stays in the library's cache,
// ~/.embedded-postgres-go.
//
// The library offers this only as the first half of Start, whose second half (initdb and pg_ctl) cannot work as root. So it is given a
// data folder that cannot exist, inside a regular file: Start ends with an error once the binaries are there.
func fetchBinaries(dir string) (string, error) {
	root := filepath.Join(dir, "postgresql")
	bin := filepath.Join(root, "bin")
	var log strings.Builder
	err := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(embeddedpostgres.V17).
		Port(0).
		RuntimePath(root).
		BinariesPath(root).
		DataPath(filepath.Join(bin, "initdb", "data")).
		Logger(&log)).Start()
	http.DefaultClient.CloseIdleConnections() // what the library downloads with
	if hasServer(bin) {
		return bin, nil
	}
	if err == nil {
		err = errors.New("the library left no binaries")
	}
	return "", fmt.Errorf("embedded-postgres: %w %s", err, log.String())
}
