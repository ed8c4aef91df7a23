//go:build cgo

package mmopt

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A function that passes an object's address to C must keep the object alive until the call is
// done, or its clean-up may free it meanwhile. No run finds a forgotten runtime.KeepAlive for sure,
// so the source is looked at.
//
// Terms: c() gives an object's address. A lender is a function that gives on, as a C pointer, the
// address of an argument or of something in its receiver: its callers have to keep that alive.
type lender struct {
	// receiver is the type whose method it is, if it lends that.
	receiver string
	// argument is the number of the argument that it lends, or -1.
	argument int
}

// typeName is T for T, *T and []*T.
func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.ArrayType:
		return typeName(e.Elt)
	}
	return ""
}

// dotted is "a.b.c" for an expression of that form, else empty.
func dotted(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		if before := dotted(e.X); before != "" {
			return before + "." + e.Sel.Name
		}
	}
	return ""
}

func root(of string) string {
	first, _, _ := strings.Cut(of, ".")
	return first
}

// parameters are the names and types of a function's arguments, in their order.
func parameters(f *ast.FieldList) (names, types []string) {
	if f == nil {
		return nil, nil
	}
	for _, field := range f.List {
		for _, name := range field.Names {
			names, types = append(names, name.Name), append(types, typeName(field.Type))
		}
	}
	return names, types
}

// lent is what a function lends to C, by itself or through lenders.
func lent(f *ast.FuncDecl, lenders map[string]lender) (all []string) {
	names, types := parameters(f.Type.Params)
	receiver, receiverType := parameters(f.Recv)
	names, types = append(names, receiver...), append(types, receiverType...)
	ranges := map[string]string{}
	add := func(e ast.Expr) {
		of := dotted(e)
		if from, is := ranges[of]; is {
			of = from
		}
		all = append(all, of)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if r, is := n.(*ast.RangeStmt); is && r.Value != nil {
			ranges[dotted(r.Value)] = dotted(r.X)
		}
		call, is := n.(*ast.CallExpr)
		if !is {
			return true
		}
		s, is := call.Fun.(*ast.SelectorExpr)
		if !is {
			return true
		}
		if s.Sel.Name == "c" && len(call.Args) == 0 {
			add(s.X)
			return true
		}
		l, is := lenders[s.Sel.Name]
		of := slices.Index(names, dotted(s.X))
		if is && l.argument >= 0 {
			add(call.Args[l.argument])
		} else if is && of >= 0 && types[of] == l.receiver {
			add(s.X)
		}
		return true
	})
	return all
}

// kept are the arguments of runtime.KeepAlive.
func kept(f *ast.FuncDecl) (all []string) {
	ast.Inspect(f, func(n ast.Node) bool {
		if call, is := n.(*ast.CallExpr); is && dotted(call.Fun) == "runtime.KeepAlive" {
			all = append(all, dotted(call.Args[0]))
		}
		return true
	})
	return all
}

// givesPointers says whether a function has a C pointer as a result.
func givesPointers(f *ast.FuncDecl) bool {
	if f.Type.Results == nil {
		return false
	}
	for _, result := range f.Type.Results.List {
		e := result.Type
		star, is := e.(*ast.StarExpr)
		for ; is; star, is = e.(*ast.StarExpr) {
			e = star.X
		}
		if strings.HasPrefix(dotted(e), "C.") && e != result.Type {
			return true
		}
	}
	return false
}

func isAddress(f *ast.FuncDecl) bool {
	return f.Name.Name == "c" && f.Type.Params.NumFields() == 0
}

// forgotten are the places where something is lent and not kept, as "function: object", and the
// number of things lent.
func forgotten(files []*ast.File) (missing []string, n int) {
	var functions []*ast.FuncDecl
	for _, file := range files {
		for _, d := range file.Decls {
			if f, is := d.(*ast.FuncDecl); is && f.Body != nil && !isAddress(f) {
				functions = append(functions, f)
			}
		}
	}
	lenders := map[string]lender{}
	for _, f := range functions {
		names, _ := parameters(f.Type.Params)
		receiver, receiverType := parameters(f.Recv)
		for _, of := range lent(f, nil) {
			if !givesPointers(f) {
				continue
			}
			if slices.Contains(receiver, root(of)) {
				lenders[f.Name.Name] = lender{receiverType[0], -1}
			} else if i := slices.Index(names, root(of)); i >= 0 {
				lenders[f.Name.Name] = lender{"", i}
			}
		}
	}
	for _, f := range functions {
		if _, is := lenders[f.Name.Name]; is && givesPointers(f) {
			continue
		}
		all := kept(f)
		for _, of := range lent(f, lenders) {
			n++
			// What refers to an object keeps it alive.
			keeps := func(name string) bool { return name == of || strings.HasPrefix(of, name+".") }
			if !slices.ContainsFunc(all, keeps) {
				missing = append(missing, f.Name.Name+": "+of)
			}
		}
	}
	return missing, n
}

// sources are the texts of the package without its tests.
func sources(t *testing.T) (names, texts []string) {
	all := must(filepath.Glob("*.go"))(t)
	for _, name := range all {
		if !strings.HasSuffix(name, "_test.go") {
			names = append(names, name)
			texts = append(texts, string(must(os.ReadFile(name))(t)))
		}
	}
	return names, texts
}

func parsed(t *testing.T, names, texts []string) (files []*ast.File) {
	for i, text := range texts {
		files = append(files, must(parser.ParseFile(token.NewFileSet(), names[i], text, 0))(t))
	}
	return files
}

func TestObjectsAreKeptAlive(t *testing.T) {
	names, texts := sources(t)
	missing, n := forgotten(parsed(t, names, texts))
	if len(missing) > 0 || n < 80 {
		t.Fatalf("%d objects are passed to C; without runtime.KeepAlive: %q", n, missing)
	}
}

// Without any one of them, the test above fails.
func TestEachKeepAliveIsMissed(t *testing.T) {
	names, texts := sources(t)
	n := 0
	for i, text := range texts {
		lines := strings.Split(text, "\n")
		for at, line := range lines {
			if !strings.Contains(line, "runtime.KeepAlive(") {
				continue
			}
			n++
			without := slices.Clone(texts)
			without[i] = strings.Join(slices.Delete(slices.Clone(lines), at, at+1), "\n")
			if missing, _ := forgotten(parsed(t, names, without)); len(missing) == 0 {
				t.Errorf("%s:%d is not missed: %s", names[i], at+1, strings.TrimSpace(line))
			}
		}
	}
	if n < 80 {
		t.Fatalf("only %d found", n)
	}
}
