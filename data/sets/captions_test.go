package sets

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/data/coco"

	"github.com/google/go-cmp/cmp"
)

func TestCaptions(t *testing.T) {
	num, text := coco.Int, coco.Text
	none := coco.ID{}
	for name, c := range map[string]struct {
		file, text string
		want       []Caption
		bad        []string
	}{
		"COCO": {"x.json", `{"images": [{"id": 7}], "annotations": [{"id": 5, "image_id": 7, "caption": "A dog."}, {"image_id": 7, "caption": ""}]}`,
			[]Caption{{num(5), num(7), "A dog."}}, []string{"annotations[1] (id 1) is empty"}},
		"COCO without extension": {"x", "\uFEFF\n" + `{"images": [{"id": 7}], "annotations": [{"id": 5, "image_id": 7, "caption": "A dog."}]}`,
			[]Caption{{num(5), num(7), "A dog."}}, nil},
		"LAVIS, as its Flickr30k": {"x.json", `[{"image": "flickr30k-images/1.jpg", "caption": ["A dog.", "A cat."]}]`,
			[]Caption{{num(0), text("1"), "A dog."}, {num(1), text("1"), "A cat."}}, nil},
		"Karpathy's Flickr30k": {"x.json", `{"images": [
			{"imgid": 0, "filename": "a.jpg", "split": "train", "sentences": [{"sentid": 0, "raw": "A dog.", "tokens": []}, {"sentid": 1, "raw": "A cat."}]},
			{"imgid": 1, "filename": "b.jpg", "split": "test", "sentences": [{"raw": "A bus."}]}], "dataset": "flickr30k"}`,
			[]Caption{{num(0), num(0), "A dog."}, {num(1), num(0), "A cat."}, {num(2), num(1), "A bus."}}, nil},
		"JSON lines": {"x.jsonl", `{"caption": "A dog.", "id": 5, "image_id": "a"}` + "\n\n" + `{"caption": "A cat.", "key": "000001"}` + "\r\n" + `{"caption": " ", "key": "2"}` + "\n\xff",
			[]Caption{{num(5), text("a"), "A dog."}, {num(3), text("000001"), "A cat."}}, []string{"line 4 is empty", "line 5 is not valid UTF-8"}},
		"JSON lines in .json": {"x.json", `{"id": 5, "caption": "A dog."}` + "\n" + `{"caption": "A cat.", "id": "b"}`,
			[]Caption{{num(5), none, "A dog."}, {text("b"), none, "A cat."}}, nil},
		"comma-separated": {"x.csv", "\uFEFFimage,caption\na.jpg,\"A \"\"dog\"\",\nand a cat.\"\n17,A bus.\n007,A car.\n8,\n",
			[]Caption{{num(2), text("a.jpg"), "A \"dog\",\nand a cat."}, {num(4), num(17), "A bus."}, {num(5), text("007"), "A car."}}, []string{"line 6 is empty"}},
		"open_clip's table": {"x.csv", "filepath\ttitle\na, b.jpg\tA dog, a cat.\n", []Caption{{num(2), text("a, b.jpg"), "A dog, a cat."}}, nil},
		"tabs and ids":      {"x.tsv", "id\turl\tcaption\r\n9\thttp://a\tA dog.\r\n", []Caption{{num(9), text("http://a"), "A dog."}}, nil},
		"captions alone":    {"x.csv", "caption\nA dog.\n", []Caption{{num(2), none, "A dog."}}, nil},
		"Conceptual Captions": {"x.tsv", "a \"dog\thttp://a\n\"cat\" , a\thttps://b\n\thttps://c",
			[]Caption{{num(1), text("http://a"), "a \"dog"}, {num(2), text("https://b"), "\"cat\" , a"}}, []string{"line 3 is empty"}},
		"text": {"x.txt", "{a dog}\n\n A cat.\r\n", []Caption{{num(1), none, "{a dog}"}, {num(3), none, "A cat."}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), c.file)
			if err := os.WriteFile(path, []byte(c.text), 0o666); err != nil {
				t.Fatal(err)
			}
			s, err := Captions(path, 1)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, s.Captions); d != "" {
				t.Errorf("captions (-want +got):\n%s", d)
			}
			if d := cmp.Diff(c.bad, s.Bad.First); d != "" {
				t.Errorf("bad captions (-want +got):\n%s", d)
			}
			if s.Paired != (c.want[0].Image != none) || s.Photos != nil {
				t.Errorf("paired %v, photos %v", s.Paired, s.Photos)
			}
			if len(c.bad) > 0 {
				_, err = Captions(path, 0)
				checkError(t, err, []string{path, c.bad[0]})
			}
		})
	}
}

func TestCaptionsOfTars(t *testing.T) {
	path := pack(t, "0.tar", "a/001.jpg", "photo", "a/001.txt", "A dog.\n", "._a.txt", "hidden", "a/002.txt", "", "a/003.json", "{}", "003.TXT", "A cat.")
	s, err := Captions(strings.Replace(path, "0.tar", "{0..0}.tar", 1), 0.5)
	if err != nil {
		t.Fatal(err)
	}
	want := []Caption{{coco.Int(0), coco.Text("a/001"), "A dog."}, {coco.Int(2), coco.Text("003"), "A cat."}}
	if d := cmp.Diff(want, s.Captions); d != "" || !s.Paired {
		t.Errorf("paired %v, captions (-want +got):\n%s", s.Paired, d)
	}
	if d := cmp.Diff([]string{path + "/a/002.txt is empty"}, s.Bad.First); d != "" {
		t.Errorf("bad captions (-want +got):\n%s", d)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut.tar")
	if err := os.WriteFile(cut, data[:2500], 0o666); err != nil {
		t.Fatal(err)
	}
	_, err = Captions(cut, 1)
	checkError(t, err, []string{cut, "damaged at or after its member a/001.txt, at byte 2500", "1 captions before it were read"})
	_, err = Captions(pack(t, "none.tar", "a.jpg", "photo"), 1)
	checkError(t, err, []string{"none.tar: no captions"})
	_, err = Captions(pack(t, "long.tar", "a.txt", strings.Repeat("long ", 20000)), 1)
	checkError(t, err, []string{"long.tar/a.txt", "100000 bytes are too many"})
}

func TestCaptionErrors(t *testing.T) {
	for name, c := range map[string]struct {
		file, text string
		says       []string
	}{
		"broken line":       {"x.jsonl", "{\"caption\": \"a\"}\n{\"caption\": }", []string{"x.jsonl:2:13: broken JSON"}},
		"wrong type":        {"x.jsonl", `{"caption": 7}`, []string{"x.jsonl:1:13: caption: got a number, want a string"}},
		"an id is a list":   {"x.jsonl", `{"caption": "a", "key": []}`, []string{`x.jsonl:1: "key" is a list`}},
		"no caption":        {"x.jsonl", `{"text": "a"}`, []string{`x.jsonl:1: no "caption"`}},
		"no column":         {"x.csv", "url,text\na,b", []string{`x.csv:1: no column "caption"`, `"url" "text"`, "caption<TAB>URL"}},
		"too few columns":   {"x.csv", "a,caption\nb\n", []string{"x.csv:2:1: this row has another number of columns"}},
		"quotation mark":    {"x.csv", "a,caption\nb,c\"d\n", []string{"x.csv:2:4: a quotation mark inside a value"}},
		"unclosed":          {"x.csv", "a,caption\nb,\"c\nd\n", []string{"line 2 has no counterpart"}},
		"three columns":     {"x.tsv", "a\thttp://b\nc\thttp://d\te\n", []string{"x.tsv:2: 3 columns, want 2"}},
		"empty table":       {"x.csv", "", []string{"x.csv: the file is empty"}},
		"only a header":     {"x.csv", "caption\n", []string{"x.csv: no captions"}},
		"empty JSON":        {"x.json", "", []string{"x.json is empty"}},
		"broken JSON":       {"x.json", `{"images": [`, []string{"x.json:1:13: broken JSON"}},
		"another JSON":      {"x.json", `{"a": 1}`, []string{`no "images"`}},
		"instances of COCO": {"x.json", `{"images": [{"id": 1}], "annotations": [{"id": 1, "image_id": 1}]}`, []string{"captions file?"}},
		"long line":         {"x.tsv", "a\thttp://b\n" + strings.Repeat("a", maxLine), []string{"x.tsv:2: line longer"}},
		"missing tar":       {"gone/x.tar", "", []string{"x.tar: no such file"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), c.file)
			if !strings.HasPrefix(c.file, "gone/") {
				if err := os.WriteFile(path, []byte(c.text), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Captions(path, 1)
			checkError(t, err, append(c.says, filepath.Dir(path)))
		})
	}
}

// Any bytes give captions or an error that begins with the path.
func FuzzCaptions(f *testing.F) {
	f.Add(0, []byte(`{"images": [{"id": 7, "sentences": []}], "annotations": [{"id": 5, "image_id": 7, "caption": "A dog."}]}`))
	f.Add(0, []byte(`[{"image": "1.jpg", "caption": ["A dog.", "A cat."]}]`))
	f.Add(1, []byte(`{"caption": "A dog.", "id": 5, "image_id": "a"}`))
	f.Add(2, []byte("image,caption\na.jpg,\"A \"\"dog\"\"\"\n"))
	f.Add(3, []byte("a dog\thttp://a\n"))
	f.Add(4, []byte("a dog\n"))
	dir := f.TempDir()
	names := []string{"x.json", "x.jsonl", "x.csv", "x.tsv", "x.txt", "x.tar", "x"}
	f.Fuzz(func(t *testing.T, kind int, data []byte) {
		if kind < 0 || kind >= len(names) {
			return
		}
		path := filepath.Join(dir, names[kind])
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		s, err := Captions(path, 1)
		if err != nil && !strings.HasPrefix(err.Error(), path) {
			t.Errorf("an error without its path: %v", err)
		}
		if err == nil && len(s.Captions)+s.Bad.Count == 0 {
			t.Error("neither captions nor an error")
		}
	})
}
