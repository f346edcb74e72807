package experiment

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"cyclecap/experiment/report"
	"cyclecap/internal/jsonerror"
	"cyclecap/torch"
	"cyclecap/train"
	"cyclecap/train/bridge"
)

// fitFile is the name of the file with what a bridge costs, in the folder of its captions.
const fitFile = "fit.json"

// fitted is the contents of fitFile.
type fitted struct {
	Seconds    float64 `json:"seconds"` // to fit the bridge, without trainings
	Parameters int64   `json:"parameters"`
}

// fit fits a bridge and writes its cost to a folder.
func (x *Experiment) fit(b bridge.Bridge, e bridge.Env, dir string) (bridge.Transform, error) {
	began := time.Now()
	transform, err := b.Fit(e)
	if err == nil {
		err = torch.Synchronize(x.device)
	}
	if err != nil {
		return nil, err
	}
	f := fitted{Seconds: time.Since(began).Seconds()}
	if b.Parameters != nil {
		f.Parameters = b.Parameters(e)
	}
	return transform, writeJSON(filepath.Join(dir, fitFile), f)
}

// readFit reads the cost of a bridge. It returns nil for captions of an earlier version,
// which has not written it.
func readFit(dir string) (*fitted, error) {
	var f fitted
	err := readJSON(filepath.Join(dir, fitFile), &f)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return &f, err
}

// cost returns what a bridge costs, or nil if its captions are of an earlier version.
func (x *Experiment) cost(b bridge.Bridge, captions []*seedCaptions) (*report.Cost, error) {
	c := &report.Cost{Decoder: b.Decoder.Name}
	for _, other := range x.bridges {
		if other.Decoder == b.Decoder && other.Name != b.Name {
			c.SharedWith = append(c.SharedWith, other.Name)
		}
	}
	for _, run := range captions {
		f := run.fits[b.Name]
		if f == nil {
			return nil, nil
		}
		decoder, err := trainedFor(run.decoders[b.Decoder].log)
		if err != nil {
			return nil, err
		}
		seconds := f.Seconds
		if b.Decoder != bridge.OfTexts {
			seconds += decoder
		}
		if b.CycleGAN {
			gan, err := trainedFor(run.gan.log)
			if err != nil {
				return nil, err
			}
			seconds += gan
		}
		c.Parameters = f.Parameters
		c.Seconds, c.DecoderSeconds = append(c.Seconds, seconds), append(c.DecoderSeconds, decoder)
	}
	return c, nil
}

// trainedFor returns the seconds of all steps of a training, also of an interrupted one
// that was continued, from its log.
func trainedFor(dir string) (sum float64, err error) {
	path := filepath.Join(dir, train.MetricsFile)
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	for in.Scan() {
		var line struct{ Seconds float64 }
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			return 0, fmt.Errorf("%s: %w", path, jsonerror.Words(err))
		}
		sum += line.Seconds
	}
	return sum, in.Err()
}
