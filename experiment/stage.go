package experiment

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"time"

	"cyclecap/internal/atomicfile"
	"cyclecap/internal/jsonerror"
	"cyclecap/torch"
)

// A stage is a part of the experiment with its own folder.
type stage struct {
	name string // name for --until: "decoder"
	dir  string // relative to the experiment's folder
	// inputs is everything that the result depends on: settings, and the keys of the
	// stages that it reads.
	inputs []any
	// keeps is true if do continues from the files of an interrupted run.
	keeps bool
	// shared is true if all processes of a group run the stage together. Otherwise only
	// rank 0 runs it.
	shared bool
	do     func(ctx context.Context, dir string) error
}

// stageFile is the name of the file that a finished stage writes to its folder.
const stageFile = "stage.json"

// stageRecord is the contents of stageFile.
type stageRecord struct {
	Stage    string    `json:"stage"`
	Key      string    `json:"key"`
	Finished time.Time `json:"finished"`
	Seconds  float64   `json:"seconds"` // duration of the run that finished the stage
}

// key returns a hash of the stage's inputs.
func (s *stage) key() string {
	b, err := json.Marshal(append([]any{s.name}, s.inputs...))
	if err != nil {
		panic(err) // settings and strings always have a JSON form
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:12])
}

func readRecord(dir string) (r stageRecord, err error) {
	b, err := os.ReadFile(filepath.Join(dir, stageFile))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("%s: %w; remove the file to repeat the stage", filepath.Join(dir, stageFile), jsonerror.Words(err))
	}
	return r, nil
}

// run runs a stage unless it was finished with the same inputs. All processes of a group
// must call it.
func (x *Experiment) run(ctx context.Context, s *stage) error {
	if err := ctx.Err(); err != nil && x.Group.Size() == 1 {
		return err
	}
	first := x.Group.Rank() == 0
	done, err := false, error(nil)
	if first {
		done, err = x.begin(s)
	}
	if done, err = x.agree(done, err); done || err != nil {
		return err
	}
	dir := x.folder(s)
	began := time.Now()
	if first || s.shared {
		err = s.do(ctx, dir)
	}
	if first && err == nil {
		r := stageRecord{Stage: s.name, Key: s.key(), Finished: time.Now().UTC().Truncate(time.Second), Seconds: time.Since(began).Seconds()}
		x.note(s, r.Seconds, false)
		err = writeJSON(filepath.Join(dir, stageFile), r)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", x.title(s), err)
	}
	_, err = x.agree(false, err)
	return err
}

// note records the duration of a stage for the report.
func (x *Experiment) note(s *stage, seconds float64, skipped bool) {
	name := x.title(s)
	x.log.order = append(x.log.order, name)
	x.log.took[name], x.log.skipped[name] = seconds, skipped
}

// begin prepares the folder of a stage, or reports that the stage is done.
func (x *Experiment) begin(s *stage) (done bool, err error) {
	dir := x.folder(s)
	switch r, err := readRecord(dir); {
	case err == nil && r.Key == s.key():
		x.UI.Say("%s: unchanged, skipped", x.title(s))
		x.note(s, r.Seconds, true)
		return true, nil
	case err == nil:
		// Finished with other inputs: keep the old results in another folder.
		aside := dir + ".previous"
		if err := os.RemoveAll(aside); err != nil {
			return false, err
		}
		if err := os.Rename(dir, aside); err != nil {
			return false, err
		}
		x.UI.Say("%s: settings or inputs have changed; moved the old results to %s", x.title(s), aside)
	case !errors.Is(err, fs.ErrNotExist):
		return false, err
	case !s.keeps:
		if err := os.RemoveAll(dir); err != nil { // incomplete files of an interrupted run
			return false, err
		}
	}
	x.UI.Say("%s", x.title(s))
	return false, os.MkdirAll(dir, 0o777)
}

// agree distributes rank 0's done and err to all processes of a group.
func (x *Experiment) agree(done bool, err error) (bool, error) {
	if x.Group.Size() == 1 || (x.Group.Rank() != 0 && err != nil) {
		return done, err // a process that fails leaves the group, which the others notice
	}
	failed := false
	e := torch.Scope(func() error {
		word := torch.FromSlice([]float32{number(done), number(err != nil)})
		if err := x.Group.Broadcast(word, 0); err != nil {
			return err
		}
		v := torch.ToSlice[float32](word)
		done, failed = v[0] != 0, v[1] != 0
		return nil
	})
	switch {
	case err != nil:
		return done, err
	case e != nil:
		return done, e
	case failed:
		return done, errors.New("rank 0 has failed; see its error message")
	}
	return done, nil
}

func number(b bool) float32 {
	if b {
		return 1
	}
	return 0
}

// folder returns the folder of a stage.
func (x *Experiment) folder(s *stage) string { return filepath.Join(x.Dir, x.name(s)) }

// title returns the name of a stage in messages: "seed-0/decoder-texts".
func (x *Experiment) title(s *stage) string { return path.Join(x.place, filepath.ToSlash(x.name(s))) }

// name returns the folder of a stage in the experiment's folder.
func (x *Experiment) name(s *stage) string {
	if x.keyed {
		return s.dir + "-" + s.key()[:8]
	}
	return s.dir
}

// writeJSON writes a file atomically.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.WriteBytes(path, append(b, '\n'))
}

// lock prevents a second run in the folder until unlock is called or the process ends.
func lock(dir string) (unlock func(), err error) {
	path := filepath.Join(dir, ".lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: another run is using this folder; wait for it to finish or choose another folder with --output", dir)
	}
	return func() { f.Close() }, nil
}
