package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What somebody sees who edits a rules file in an editor with the YAML language server: nothing in a file that is right, and in one with
// mistakes the same that `rules check` finds in shape and names; and the names of the file while they type.
func TestEditor(t *testing.T) {
	// The first line of both names the schema; show writes it.
	_, example, _ := strings.Cut(readFile(t, "../rules.example.yaml"), "\n")
	_, design, _ := strings.Cut(readFile(t, "../mapping/testdata/design.yaml"), "\n")
	for _, schema := range []string{"of the file", "of the language"} {
		for name, text := range map[string]string{"rules.example.yaml": example, "design.yaml": design} {
			t.Run(name+", schema "+schema, func(t *testing.T) {
				e := openEditor(t, text, schema == "of the file")
				if complaints := e.complaints(text); len(complaints) > 0 {
					t.Errorf("the editor complains: %q", complaints)
				}
			})
		}
	}
	t.Run("mistakes", func(t *testing.T) {
		e := openEditor(t, example, true)
		for _, change := range []struct{ old, new, complaint string }{
			{"    role: admin\n", "    role: amdin\n", "admin"},
			{"{ groups: /hr/leavers }", "{ gruops: /hr/leavers }", "gruops"},
			{"preset: keycloak", "preset: keycloack", "keycloak"},
			{"    unless:   ", "    unles:   ", "unles"},
			{"default: deny", "default: allow", ""},
		} {
			text := strings.Replace(example, change.old, change.new, 1)
			if complaints := e.complaints(text); text == example || !strings.Contains(strings.Join(complaints, " "), change.complaint) || len(complaints) == 0 {
				t.Errorf("%q: the editor says %q", change.new, complaints)
			}
		}
	})
	t.Run("completion", func(t *testing.T) {
		e := openEditor(t, example, true)
		text := strings.Replace(example, "    when: { groups: /hr/leavers }", "    when:\n      \n", 1)
		at := strings.Index(text, "    when:\n      \n") + len("    when:\n      ")
		offered := e.completions(text, strings.Count(text[:at], "\n"), 6)
		for _, claim := range []string{"groups", "client_roles", "department"} {
			if !slices.Contains(offered, claim) {
				t.Errorf("%s is not among the claims that are offered: %q", claim, offered)
			}
		}
		if slices.Contains(offered, "hd") {
			t.Error("a claim of the other provider is offered")
		}
	})
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// An editor is the client's side of the language server protocol, as much of it as the test needs.
type editor struct {
	t       *testing.T
	uri     string
	in      io.Writer
	out     *bufio.Reader
	version int
	serial  int
}

// openEditor starts the server in a folder with the rules file and its schema, written by the program.
func openEditor(t *testing.T, text string, own bool) *editor {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join(dir, "rules.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"rules", "schema", name}
	if !own {
		args = []string{"rules", "schema", "--generic"}
	}
	schema, code := run(t, exec.Command(binary, args...))
	if code != 0 {
		t.Fatalf("%s: exit code %d: %s", args, code, schema)
	}
	if err := os.WriteFile(filepath.Join(dir, "rules.schema.json"), []byte(schema), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "editor/node_modules/yaml-language-server/bin/yaml-language-server", "--stdio")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// A server that falls silent must not hang the test: its output ends.
	deadline := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	t.Cleanup(func() {
		deadline.Stop()
		cmd.Process.Kill()
		cmd.Wait()
	})
	e := &editor{t: t, uri: "file://" + name, in: in, out: bufio.NewReader(out)}
	e.call("initialize", map[string]any{"processId": os.Getpid(), "rootUri": "file://" + dir, "capabilities": map[string]any{
		"textDocument": map[string]any{"completion": map[string]any{}, "publishDiagnostics": map[string]any{}},
	}})
	e.notify("initialized", map[string]any{})
	e.notify("workspace/didChangeConfiguration", map[string]any{"settings": map[string]any{"yaml": map[string]any{
		"validate": true, "completion": true, "schemaStore": map[string]any{"enable": false},
	}}})
	return e
}

// show opens the text in the editor, or changes it to this.
func (e *editor) show(text string) {
	text = "# yaml-language-server: $schema=rules.schema.json\n" + text
	e.version++
	document := map[string]any{"uri": e.uri, "languageId": "yaml", "version": e.version, "text": text}
	if e.version == 1 {
		e.notify("textDocument/didOpen", map[string]any{"textDocument": document})
		return
	}
	e.notify("textDocument/didChange", map[string]any{
		"textDocument": map[string]any{"uri": e.uri, "version": e.version}, "contentChanges": []any{map[string]any{"text": text}},
	})
}

// complaints shows the text and returns what the server underlines.
func (e *editor) complaints(text string) (messages []string) {
	e.t.Helper()
	e.show(text)
	for {
		m := e.receive()
		if m.Method != "textDocument/publishDiagnostics" {
			continue
		}
		var published struct{ Diagnostics []struct{ Message string } }
		if err := json.Unmarshal(m.Params, &published); err != nil {
			e.t.Fatal(err)
		}
		for _, d := range published.Diagnostics {
			messages = append(messages, d.Message)
		}
		return messages
	}
}

// completions shows the text and returns the keys offered at a position of it, from 0.
func (e *editor) completions(text string, line, character int) (keys []string) {
	e.t.Helper()
	e.show(text)
	result := e.call("textDocument/completion", map[string]any{
		"textDocument": map[string]any{"uri": e.uri}, "position": map[string]any{"line": line + 1, "character": character},
	})
	var list struct{ Items []struct{ Label string } }
	if err := json.Unmarshal(result, &list); err != nil {
		e.t.Fatal(err)
	}
	for _, item := range list.Items {
		keys = append(keys, item.Label)
	}
	return keys
}

type message struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  json.RawMessage `json:"error"`
}

func (e *editor) call(method string, params any) json.RawMessage {
	e.t.Helper()
	e.serial++
	e.send(map[string]any{"jsonrpc": "2.0", "id": e.serial, "method": method, "params": params})
	for {
		m := e.receive()
		if m.Method == "" && string(m.ID) == strconv.Itoa(e.serial) {
			if m.Error != nil {
				e.t.Fatalf("%s: %s", method, m.Error)
			}
			return m.Result
		}
	}
}

func (e *editor) notify(method string, params any) {
	e.t.Helper()
	e.send(map[string]any{"jsonrpc": "2.0", "method": method, "params": params})
}

func (e *editor) send(message any) {
	e.t.Helper()
	text, err := json.Marshal(message)
	if err != nil {
		e.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(e.in, "Content-Length: %d\r\n\r\n%s", len(text), text); err != nil {
		e.t.Fatal(err)
	}
}

// receive returns the server's next message; what it asks of an editor is answered with nothing.
func (e *editor) receive() (m message) {
	e.t.Helper()
	header, err := textproto.NewReader(e.out).ReadMIMEHeader()
	if err != nil {
		e.t.Fatal(err)
	}
	length, err := strconv.Atoi(header.Get("Content-Length"))
	if err != nil {
		e.t.Fatal(err)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(e.out, text); err != nil {
		e.t.Fatal(err)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		e.t.Fatal(err)
	}
	if m.Method != "" && m.ID != nil {
		e.send(map[string]any{"jsonrpc": "2.0", "id": m.ID, "result": nil})
	}
	return m
}
