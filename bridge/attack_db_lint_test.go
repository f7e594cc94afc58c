package bridge_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// A sqlLint finds out whether the statements of a package stand in its source: as literals, constants, sums of these, or parameters of a
// function that is only ever called with such.
type sqlLint struct {
	files     *token.FileSet
	functions []*ast.FuncDecl
	constants map[string]bool
	hooks     int // calls of users.hook, whose name was checked by LoadConfig and has no other place than the text
}

func newSQLLint(t *testing.T) *sqlLint {
	l := &sqlLint{files: token.NewFileSet(), constants: map[string]bool{}}
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(l.files, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				l.functions = append(l.functions, d)
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if value, ok := spec.(*ast.ValueSpec); ok && d.Tok == token.CONST {
						for _, name := range value.Names {
							l.constants[name.Name] = true
						}
					}
				}
			}
		}
	}
	return l
}

// calls visits every call, with the function that it stands in and the name of what it calls.
func (l *sqlLint) calls(visit func(in *ast.FuncDecl, call *ast.CallExpr, name string)) {
	for _, f := range l.functions {
		ast.Inspect(f, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				switch fun := call.Fun.(type) {
				case *ast.SelectorExpr:
					visit(f, call, fun.Sel.Name)
				case *ast.Ident:
					visit(f, call, fun.Name)
				}
			}
			return true
		})
	}
}

func (l *sqlLint) constant(in *ast.FuncDecl, e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return true
	case *ast.BinaryExpr:
		return l.constant(in, e.X) && l.constant(in, e.Y)
	case *ast.CallExpr:
		if f, ok := e.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Sprintf" && fmt.Sprint(e.Args[0]) == "callHook" {
			l.hooks++
			return true
		}
	case *ast.Ident:
		return l.constants[e.Name] || l.parameter(in, e.Name)
	}
	return false
}

// parameter reports whether the name is a parameter of an unexported function that gets constants at every call.
func (l *sqlLint) parameter(in *ast.FuncDecl, name string) bool {
	var names []string
	for _, field := range in.Type.Params.List {
		for _, n := range field.Names {
			names = append(names, n.Name)
		}
	}
	at := slices.Index(names, name)
	if at < 0 || in.Name.IsExported() {
		return false
	}
	all := true
	l.calls(func(from *ast.FuncDecl, call *ast.CallExpr, called string) {
		if called == in.Name.Name && len(call.Args) > at && !l.constant(from, call.Args[at]) {
			all = false
		}
	})
	return all
}

// TestAttack_DB01_StatementsAreConstant: no statement is put together from what is not in the source, but for the name of users.hook.
func TestAttack_DB01_StatementsAreConstant(t *testing.T) {
	t.Parallel()
	l := newSQLLint(t)
	statements := 0
	l.calls(func(in *ast.FuncDecl, call *ast.CallExpr, name string) {
		var sql ast.Expr
		switch {
		case name == "Queue":
			sql = call.Args[0]
		case slices.Contains([]string{"Exec", "Query", "QueryRow", "Prepare"}, name) && len(call.Args) > 1:
			sql = call.Args[1]
		default:
			return
		}
		statements++
		if !l.constant(in, sql) {
			t.Errorf("%s: a statement that is put together", l.files.Position(call.Pos()))
		}
	})
	if l.hooks != 1 || statements < 10 {
		t.Errorf("%d statements, %d of them call the hook", statements, l.hooks)
	}
	bridgetest.Tried(t, statements)
}
