package examples

import (
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// packages are those that the guide uses, by the names under which it imports them.
var packages = map[string]string{
	"F":           "cyclecap/torch/nn/functional",
	"compare":     "cyclecap/torch/compare",
	"context":     "context",
	"cuda":        "cyclecap/torch/cuda",
	"data":        "cyclecap/torch/data",
	"distributed": "cyclecap/torch/distributed",
	"errors":      "errors",
	"filepath":    "path/filepath",
	"fmt":         "fmt",
	"json":        "encoding/json",
	"log":         "log",
	"math":        "math",
	"nn":          "cyclecap/torch/nn",
	"npy":         "cyclecap/torch/npy",
	"optim":       "cyclecap/torch/optim",
	"os":          "os",
	"signal":      "os/signal",
	"strings":     "strings",
	"sync":        "sync",
	"testing":     "testing",
	"torch":       "cyclecap/torch",
	"torchtest":   "cyclecap/torch/torchtest",
	"weights":     "cyclecap/weights",
}

// A block is what is between two fences of a page, or a comment <!-- setup … -->, whose statements come before
// those of all blocks up to the next such comment.
type block struct {
	info string // what follows the first fence, or "setup"
	line int    // of its first line
	text string
}

// blocks returns the blocks of a page.
func blocks(text string) (list []block) {
	var open *block
	for i, line := range strings.Split(text, "\n") {
		switch info, fence := strings.CutPrefix(line, "```"); {
		case open == nil && fence:
			open = &block{info: info, line: i + 2}
		case open == nil && line == "<!-- setup":
			open = &block{info: "setup", line: i + 2}
		case open != nil && (line == "```" || line == "-->" && open.info == "setup"):
			list = append(list, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		}
	}
	return list
}

// declared returns the names of the variables that statements declare.
func declared(statements string) (names []string, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), "", "package p\nfunc _() {\n"+statements+"\n}", parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	add := func(e ast.Expr) {
		if id, ok := e.(*ast.Ident); ok && id.Name != "_" {
			names = append(names, id.Name)
		}
	}
	for _, s := range file.Decls[0].(*ast.FuncDecl).Body.List {
		switch s := s.(type) {
		case *ast.AssignStmt:
			if s.Tok == token.DEFINE {
				for _, e := range s.Lhs {
					add(e)
				}
			}
		case *ast.DeclStmt:
			if d := s.Decl.(*ast.GenDecl); d.Tok == token.VAR {
				for _, spec := range d.Specs {
					for _, id := range spec.(*ast.ValueSpec).Names {
						add(id)
					}
				}
			}
		}
	}
	return names, nil
}

// imports adds the imports that Go text without any needs.
func imports(text string) (string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), "", text, 0)
	if err != nil {
		return "", err
	}
	used := map[string]bool{}
	for _, id := range file.Unresolved {
		if packages[id.Name] != "" {
			used[id.Name] = true
		}
	}
	var b strings.Builder
	clause, rest, _ := strings.Cut(text, "\n")
	fmt.Fprintf(&b, "%s\nimport (\n", clause)
	for _, name := range slices.Sorted(maps.Keys(used)) {
		fmt.Fprintf(&b, "%s %q\n", name, packages[name])
	}
	fmt.Fprintf(&b, ")\n%s", rest)
	return b.String(), nil
}

// guide returns the pages of the guide, by their paths from the root.
func guide(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	inside, err := filepath.Glob("../docs/torch/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(inside, "../docs/torch.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		pages[filepath.ToSlash(strings.TrimPrefix(path, "../"))] = string(text)
	}
	return pages
}

// TestGuide compiles and vets the Go blocks of the guide, each in a function of its own, and runs them in a
// scope: those fenced as "go norun" need a GPU or other processes, and are only compiled. A comment after fmt.Println
// is what it prints. Whole programs run too.
func TestGuide(t *testing.T) {
	dir := t.TempDir()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	put := func(name, text string) {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	// A module of its own, in a workspace with this one.
	out, err := exec.Command("go", "list", "-m", "-f", "{{.GoVersion}}").Output()
	if err != nil {
		t.Fatal(err)
	}
	version := strings.TrimSpace(string(out))
	put("go.mod", "module guide\n\ngo "+version+"\n")
	put("go.work", fmt.Sprintf("go %s\n\nuse (\n\t.\n\t%s\n)\n", version, root))
	command := func(args ...string) {
		t.Helper()
		cmd := exec.Command("go", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	programs := []string{"guide"}    // those of the guide, and the one that runs all other blocks
	printed := map[string][]string{} // lines that blocks print: comments after fmt.Println
	prints := regexp.MustCompile(`(?m)^\t*fmt\.Println\(.*\) +// (.*)$`)
	all := "package main\n"
	calls := ""
	count := 0
	pages := guide(t)
	for _, path := range slices.Sorted(maps.Keys(pages)) {
		name := "guide_" + strings.TrimSuffix(filepath.Base(path), ".md")
		page, run, setup := "package "+name+"\n", "", ""
		for _, b := range blocks(pages[path]) {
			switch {
			case b.info == "setup":
				names, err := declared(b.text)
				if err != nil {
					t.Fatalf("%s:%d: %v", path, b.line, err)
				}
				setup = fmt.Sprintf("//line %s:%d\n%s", path, b.line, b.text)
				for _, v := range names {
					setup += "_ = " + v + "\n"
				}
				continue
			case b.info != "go" && b.info != "go norun":
				continue
			}
			count++
			if formatted, err := format.Source([]byte(b.text)); err == nil && string(formatted) != b.text {
				t.Errorf("%s:%d: gofmt makes of the block\n%s", path, b.line, formatted)
			}
			if strings.HasPrefix(b.text, "package main\n") {
				program := fmt.Sprintf("%s_%d", name, b.line)
				put(program+"/main.go", b.text)
				programs = append(programs, program)
				continue
			}
			at := fmt.Sprintf("//line %s:%d\n", path, b.line)
			if _, err := parser.ParseFile(token.NewFileSet(), "", "package p\n"+b.text, 0); err == nil {
				page += at + b.text
				continue
			}
			names, err := declared(b.text)
			if err != nil {
				t.Errorf("%s:%d: %v", path, b.line, err)
				continue
			}
			page += fmt.Sprintf("func block%d() error {\nreturn torch.Scope(func() error {\n%s{\n%s%s", b.line, setup, at, b.text)
			for _, v := range names {
				page += "_ = " + v + "\n"
			}
			page += "}\nreturn nil\n})\n}\n"
			if b.info == "go norun" {
				page += fmt.Sprintf("var _ = block%d\n", b.line)
			} else {
				run += fmt.Sprintf("fmt.Println(\"=== %s:%d\")\nif err := block%d(); err != nil {\nfmt.Println(\"failed:\", err)\n}\n", path, b.line, b.line)
				for _, m := range prints.FindAllStringSubmatch(b.text, -1) {
					at := fmt.Sprintf("%s:%d", path, b.line)
					printed[at] = append(printed[at], m[1])
				}
			}
		}
		page += "// Run runs the blocks of a page.\nfunc Run() {\n" + run + "}\n"
		if page, err = imports(page); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		put(name+"/page.go", page)
		all += fmt.Sprintf("import %q\n", "guide/"+name)
		calls += name + ".Run()\n"
	}
	if t.Failed() {
		return
	}
	if count < 50 {
		t.Errorf("the guide has only %d blocks of Go", count)
	}
	put("guide/main.go", all+"func main() {\n"+calls+"}\n")
	command("vet", "./...")
	for _, program := range programs {
		binary := filepath.Join(dir, program, "program")
		command("build", "-o", binary, "./"+program)
		cmd := exec.Command(binary)
		cmd.Dir = t.TempDir()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", program, err, out)
		}
		for part := range strings.SplitSeq(string(out), "=== ") {
			at, text, _ := strings.Cut(part, "\n")
			if _, failed, ok := strings.Cut(text, "failed: "); ok {
				t.Errorf("%s: %s", at, failed)
			}
			for _, line := range printed[at] {
				if !slices.Contains(strings.Split(text, "\n"), line) {
					t.Errorf("%s: the output lacks the line %s:\n%s", at, line, text)
				}
			}
		}
	}
}

// TestNames: the names of the binding that the text and the tables of the guide have exist. The first cell of a
// table's row is about other libraries.
func TestNames(t *testing.T) {
	names := map[string]map[string]bool{} // of each package, and "" for methods and fields
	names[""] = map[string]bool{}
	for name, path := range packages {
		path, ours := strings.CutPrefix(path, strings.TrimSuffix(packages["torch"], "torch"))
		if !ours {
			continue
		}
		files, err := filepath.Glob(filepath.Join("..", path, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", path, err)
		}
		names[name] = map[string]bool{}
		for _, path := range files {
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range file.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					if d.Recv != nil {
						names[""][d.Name.Name] = true
					} else {
						names[name][d.Name.Name] = true
					}
				case *ast.GenDecl:
					ast.Inspect(d, func(n ast.Node) bool {
						switch n := n.(type) {
						case *ast.TypeSpec:
							names[name][n.Name.Name] = true
						case *ast.ValueSpec:
							for _, id := range n.Names {
								names[name][id.Name] = true
							}
						case *ast.Field:
							for _, id := range n.Names {
								names[""][id.Name] = true
							}
						}
						return true
					})
				}
			}
		}
	}
	code := regexp.MustCompile("`[^`]+`")
	ofPackage := regexp.MustCompile(`(?:^|[^\w.])(\w+)\.([A-Z]\w*)`)
	method := regexp.MustCompile(`[\w)]\.([A-Z]\w*)\(`)
	count := 0
	for path, text := range guide(t) {
		fenced := false
		for i, line := range strings.Split(text, "\n") {
			if strings.HasPrefix(line, "```") {
				fenced = !fenced
			}
			if fenced {
				continue
			}
			if cells := strings.Split(line, " | "); strings.HasPrefix(line, "| ") && len(cells) > 1 {
				line = strings.Join(cells[1:], " | ")
			}
			for _, span := range code.FindAllString(line, -1) {
				for _, m := range ofPackage.FindAllStringSubmatch(span, -1) {
					if own := names[m[1]]; own != nil && m[1] != "" {
						count++
						if !own[m[2]] {
							t.Errorf("%s:%d: there is no %s.%s", path, i+1, m[1], m[2])
						}
					}
				}
				for _, m := range method.FindAllStringSubmatchIndex(span, -1) {
					before := regexp.MustCompile(`\w*$`).FindString(span[:m[2]-1])
					if name := span[m[2]:m[3]]; packages[before] == "" {
						count++
						if !names[""][name] {
							t.Errorf("%s:%d: nothing has the method %s: %s", path, i+1, name, span)
						}
					}
				}
			}
		}
	}
	if count < 200 {
		t.Errorf("only %d names were found", count)
	}
}

// TestLinks: links between files of the project, and to their headings, lead somewhere.
func TestLinks(t *testing.T) {
	list, err := exec.Command("git", "-C", "..", "ls-files", "*.md").Output()
	if err != nil {
		t.Skip("this is no checkout of git")
	}
	anchors := map[string]map[string]bool{} // by path
	notWord := regexp.MustCompile(`[^\pL\pN _-]`)
	of := func(path string) map[string]bool {
		if anchors[path] == nil {
			anchors[path] = map[string]bool{}
			text, _ := os.ReadFile(filepath.Join("..", path))
			fenced := false
			for line := range strings.Lines(string(text)) {
				if strings.HasPrefix(line, "```") {
					fenced = !fenced
				}
				if title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") && !fenced {
					anchors[path][strings.ReplaceAll(notWord.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), ""), " ", "-")] = true
				}
			}
		}
		return anchors[path]
	}
	count := 0
	link := regexp.MustCompile(`\]\(([^)#: ]*)(#[^) ]*)?\)`)
	code := regexp.MustCompile("(?ms)^```.*?^```$|`[^`\n]*`")
	for path := range strings.Lines(string(list)) {
		path = strings.TrimSpace(path)
		text, err := os.ReadFile(filepath.Join("..", path))
		if os.IsNotExist(err) {
			continue // removed, and not committed yet
		} else if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(string(text), ""), -1) {
			to := path
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(path), m[1])
			}
			count++
			if _, err := os.Stat(filepath.Join("..", to)); err != nil {
				t.Errorf("%s: the link %s leads to no file", path, m[0])
			} else if m[2] != "" && !of(to)[m[2][1:]] {
				t.Errorf("%s: the link %s leads to no heading", path, m[0])
			}
		}
	}
	if count < 100 {
		t.Errorf("only %d links were found", count)
	}
}
