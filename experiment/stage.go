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
	"slices"
	"syscall"
	"time"

	"cyclecap/internal/atomicfile"
	"cyclecap/torch"
	"cyclecap/torch/distributed"
	"cyclecap/train"
)

// A stage is a part of the experiment with its own folder.
type stage struct {
	name string // name for --until: "decoder"
	dir  string // relative to the experiment's folder
	// settings are those that change what the stage writes.
	settings []any
	// inputs are hashes of what the stage reads: of files and texts, and the results of
	// other stages. Only those of rank 0 count.
	inputs []string
	// products are the files, in the stage's folder, that other stages read; nil means
	// all. They are the same for the same settings and inputs. Other files are logs and
	// checkpoints.
	products []string
	// outside are files that the stage writes to other folders.
	outside []string
	// keeps is true if do continues from the files of an interrupted run.
	keeps bool
	// shared is true if all processes of a group run the stage together, up to the end of a
	// training (see trainTogether). Otherwise only rank 0 runs it.
	shared bool
	do     func(ctx context.Context, dir string) error

	cached string // the key, once it is known
	// result is a hash of the products, the input of other stages. Only rank 0 knows it.
	result string
	// again is true if the stage was finished before and its checkpoint continues it.
	again bool
	// outcome says in a few words what do has come to: "loss 2.310". It may be empty.
	outcome string
}

// stageFile is the name of the file that a finished stage writes to its folder.
const stageFile = "stage.json"

// stageRecord is the contents of stageFile.
type stageRecord struct {
	Stage    string    `json:"stage"`
	Key      string    `json:"key"`
	Finished time.Time `json:"finished"`
	Seconds  float64   `json:"seconds"` // duration of the run that finished the stage
	Result   string    `json:"result"`  // stage.result
	Outputs  []output  `json:"outputs"`
}

// An output is a file that a stage has written.
type output struct {
	Path   string `json:"path"` // relative to the stage's folder
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// key returns a hash of the stage's settings and inputs.
func (s *stage) key() string {
	if s.cached == "" {
		b, err := json.Marshal([]any{s.name, s.settings, s.inputs})
		if err != nil {
			panic(err) // settings and strings always have a JSON form
		}
		sum := sha256.Sum256(b)
		s.cached = hex.EncodeToString(sum[:12])
	}
	return s.cached
}

// isProduct reports whether other stages read a file.
func (s *stage) isProduct(path string) bool {
	return s.products == nil || slices.Contains(s.products, path)
}

// outputs lists the files that a finished stage has written.
func (s *stage) outputs(dir string) (list []output, err error) {
	add := func(path string) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		hash, err := hashFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		list = append(list, output{filepath.ToSlash(name), info.Size(), hash})
		return err
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || e.Name() == stageFile || e.Name() == ".lock" {
			return err
		}
		return add(path)
	})
	for _, path := range s.outside {
		if err == nil {
			err = add(path)
		}
	}
	return list, err
}

// resultOf returns the hash of the products among outputs.
func (s *stage) resultOf(list []output) string {
	h := sha256.New()
	for _, o := range list {
		if s.isProduct(o.Path) {
			fmt.Fprintf(h, "%q %s\n", o.Path, o.SHA256)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// damaged says what is wrong with an output, or returns "". It reads the file only if
// read is true; otherwise it looks at the size.
func (o output) damaged(dir string, read bool) string {
	path := filepath.Join(dir, filepath.FromSlash(o.Path))
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return path + " is missing"
	case err != nil:
		return err.Error()
	case info.Size() != o.Size:
		return fmt.Sprintf("%s has %d bytes instead of %d", path, info.Size(), o.Size)
	case !read:
		return ""
	}
	hash, err := hashFile(path)
	switch {
	case err != nil:
		return err.Error()
	case hash != o.SHA256:
		return path + " has changed since it was written"
	}
	return ""
}

// readRecord reads the record of a finished stage. It returns a damagedError for one of an
// earlier version as well.
func readRecord(dir string) (r stageRecord, err error) {
	return r, readChecked(filepath.Join(dir, stageFile), &r)
}

// run runs a stage unless it was finished with the same inputs. All processes of a group
// must call it.
func (x *Experiment) run(ctx context.Context, s *stage) error {
	if err := ctx.Err(); err != nil && x.Group.Size() == 1 {
		return err
	}
	if x.dry != nil {
		if !x.dry.look(x, s) {
			return errUnfinished
		}
		return nil
	}
	first := x.Group.Rank() == 0
	done, err := false, error(nil)
	if first {
		if err = ctx.Err(); err == nil {
			done, err = x.begin(s)
		}
	}
	if done, err = x.agree(ctx, s, done, err); done || err != nil {
		return err
	}
	if s.shared {
		if err := x.UI.Atomic(func() error { return x.watch.end(ctx) }); err != nil {
			return err
		}
	}
	dir := x.folder(s)
	began := time.Now()
	if first || s.shared {
		err = s.do(ctx, dir)
	}
	failed := err != nil
	if first && err == nil {
		err = x.finish(s, dir, time.Since(began))
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", x.title(s), err)
	}
	if failed && x.Group.Size() > 1 && !x.watch.alone {
		// The training has failed, or was interrupted in all processes. The others may be in
		// the middle of a step, and would wait there. They notice that this process leaves
		// the group.
		return err
	}
	_, err = x.agree(ctx, s, false, err)
	return err
}

// finish writes the record of a stage.
func (x *Experiment) finish(s *stage, dir string, took time.Duration) error {
	r := stageRecord{Stage: s.name, Key: s.key(), Finished: time.Now().UTC().Truncate(time.Second), Seconds: took.Seconds()}
	var err error
	if r.Outputs, err = s.outputs(dir); err != nil {
		return err
	}
	r.Result = s.resultOf(r.Outputs)
	s.result = r.Result
	x.note(s, r.Seconds, false)
	outcome := ""
	if s.outcome != "" {
		outcome = ": " + s.outcome
	}
	x.UI.Say("%s: done in %v%s", x.title(s), rounded(took), outcome)
	return errors.Join(writeChecked(filepath.Join(dir, stageFile), r), x.contents.save())
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
	r, err := readRecord(dir)
	damaged := (*damagedError)(nil)
	switch {
	case err == nil && r.Key == s.key():
		if done, err = x.intact(s, dir, r); err != nil {
			return false, err
		}
		if done {
			x.UI.Say("%s: unchanged, skipped", x.title(s))
			x.note(s, r.Seconds, true)
			s.result = r.Result
			return true, nil
		}
	case err == nil:
		// Finished with other inputs: keep the old results in another folder.
		if err := x.moveAside(s, dir, "settings or inputs have changed"); err != nil {
			return false, err
		}
	case errors.As(err, &damaged) && s.keeps && train.Resumable(dir, s.key()):
		// Only the record of a training is lost: what it says follows from the checkpoint.
		x.UI.Say("%s: %v; writing the results again from the checkpoint", x.title(s), damaged)
		if err := os.Remove(damaged.path); err != nil {
			return false, err
		}
		s.again = true
	case errors.As(err, &damaged):
		if err := x.moveAside(s, dir, damaged.Error()+", or of an earlier version"); err != nil {
			return false, err
		}
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

// moveAside keeps the old results of a stage in another folder.
func (x *Experiment) moveAside(s *stage, dir, why string) error {
	aside := dir + ".previous"
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	if err := os.Rename(dir, aside); err != nil {
		return err
	}
	x.UI.Say("%s: %s; moved the old results to %s", x.title(s), why, aside)
	return nil
}

// intact checks the outputs of a finished stage. If one is missing or damaged that can be
// made again without training again, or that others need, it removes what the stage cannot
// continue from.
func (x *Experiment) intact(s *stage, dir string, r stageRecord) (ok bool, err error) {
	bad := x.lost(s, dir, r)
	if len(bad) == 0 {
		return true, nil
	}
	s.again = slices.ContainsFunc(r.Outputs, func(o output) bool { return isCheckpoint(o) && o.damaged(dir, true) == "" })
	if !s.again {
		return false, os.RemoveAll(dir)
	}
	for _, name := range append(bad, stageFile) {
		if err := os.Remove(filepath.Join(dir, filepath.FromSlash(name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

// isCheckpoint reports whether an output is a checkpoint that a training continues from.
func isCheckpoint(o output) bool {
	return o.Path == train.LastCheckpoint || o.Path == train.PreviousCheckpoint
}

// lost lists the outputs of a finished stage that must be made again, and says what is wrong
// with them and with others.
func (x *Experiment) lost(s *stage, dir string, r stageRecord) (bad []string) {
	training := slices.ContainsFunc(r.Outputs, isCheckpoint)
	for _, o := range r.Outputs {
		why := o.damaged(dir, x.VerifyOutputs)
		switch {
		case why == "":
		case s.isProduct(o.Path) || !training:
			bad = append(bad, o.Path)
			x.UI.Say("%s: %s; making it again", x.title(s), why)
		default:
			// A log or a checkpoint: to make it again would be to train again.
			x.UI.Say("%s: %s; the weights do not depend on it. To train again, remove %s", x.title(s), why, dir)
		}
	}
	return bad
}

// agree distributes rank 0's done, again, key and err to all processes of a group.
func (x *Experiment) agree(ctx context.Context, s *stage, done bool, err error) (bool, error) {
	if x.Group.Size() == 1 {
		return done, err
	}
	failed := false
	// An interruption must not end this process before the others know of it.
	e := x.UI.Atomic(func() error {
		if err := x.watch.end(ctx); err != nil {
			return err
		}
		return torch.Scope(func() error {
			word := []float32{number(done), number(s.again), number(err != nil)}
			for _, c := range []byte(s.key()) {
				word = append(word, float32(c))
			}
			t := torch.FromSlice(word)
			if err := x.Group.Broadcast(t, 0); err != nil {
				return err
			}
			v := torch.ToSlice[float32](t)
			done, s.again, failed = v[0] != 0, v[1] != 0, v[2] != 0
			key := make([]byte, len(v)-3)
			for i := range key {
				key[i] = byte(v[i+3])
			}
			s.cached = string(key)
			return nil
		})
	})
	switch {
	case errors.Is(err, context.Canceled) && errors.Is(e, distributed.ErrInterrupted):
		return done, e
	case err != nil:
		return done, err
	case e != nil:
		return done, e
	case failed:
		return done, errors.New("rank 0 has failed; see its error message")
	}
	x.watch.begin()
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
