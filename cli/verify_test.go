package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const referenceF = "../internal/verify/testdata/small.safetensors"

func TestVerify(t *testing.T) {
	page := filepath.Join(t.TempDir(), "report.html")
	r := run("", "verify", referenceF, "--clip", clipF, "--decoder", mapperF, "--gpt2", small+"gpt2", "--generator", genF, "--photos", "../testdata/photos", "--bisect", "--html", page)
	// ClipCap's file does not say whether its features were scaled, and the reference was
	// recorded without; nothing else is skipped.
	const scaled = "the reference does not scale them"
	if r.code != 0 || !strings.Contains(r.out, "diagnosis:") || strings.Count(r.out, "skipped") != 1 || !strings.Contains(r.out, scaled) {
		t.Errorf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
	if text, err := os.ReadFile(page); err != nil || !strings.Contains(string(text), "The same numbers as Python") {
		t.Errorf("%v: %.300s", err, text)
	}
	// Another model fails, and a machine can read why.
	r = run("", "verify", referenceF, "--clip", small+"clip-init.pt", "--photos", "../testdata/photos", "--json")
	var report struct {
		OK   bool
		Rows []struct{ Part, Verdict string }
	}
	if err := json.Unmarshal([]byte(r.out), &report); err != nil || r.code != 1 || report.OK || len(report.Rows) < 5 {
		t.Errorf("exit code %d, %v, %+v", r.code, err, report)
	}
	for want, args := range map[string][]string{
		"is not a reference":                   {small + "expected.safetensors", "--clip", clipF},
		"--gpt2 is required":                   {referenceF, "--decoder", mapperF},
		"give at least one of --clip":          {referenceF},
		"verify takes one REFERENCE":           {"--clip", clipF},
		"nothing.safetensors: no such file or": {"nothing.safetensors", "--clip", clipF},
	} {
		if r := run("", append([]string{"verify"}, args...)...); r.code == 0 || !strings.Contains(r.err, want) {
			t.Errorf("%v: exit code %d, %s", args, r.code, r.err)
		}
	}
}
