package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"

	"cyclecap/internal/regular"
	"cyclecap/nets/clip"
	"cyclecap/nets/siglip"
	"cyclecap/weights"
)

// Fingerprint returns a hash of what the features of a CLIP depend on: the contents of its weights
// files, its configuration and the preprocessing of photos. It reads the weights again.
func (c *CLIP) Fingerprint() (string, error) {
	h := sha256.New()
	if err := addWeights(h, c.Path); err != nil {
		return "", err
	}
	switch m := c.Model.(type) {
	case *clip.Model:
		fmt.Fprint(h, m.Config.Metadata())
	case *siglip.Model:
		fmt.Fprintf(h, "%+v", m.Config)
	}
	fmt.Fprintf(h, "%+v", c.Preprocess)
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// WeightsHash returns a hash of the contents of weights files, named as for weights.Open. Empty names count too.
func WeightsHash(names ...string) (string, error) {
	h := sha256.New()
	for _, name := range names {
		fmt.Fprintf(h, "%v;", name != "")
		if name == "" {
			continue
		}
		if err := addWeights(h, name); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// addWeights copies the contents of all files of a model.
func addWeights(to io.Writer, name string) error {
	f, err := weights.Open(name)
	if err != nil {
		return err
	}
	var paths []string
	for _, e := range f.Entries {
		if !slices.Contains(paths, e.Path) {
			paths = append(paths, e.Path)
		}
	}
	slices.Sort(paths)
	for _, path := range paths {
		if err := add(to, path); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// add copies the contents of a file.
func add(to io.Writer, path string) error {
	f, err := regular.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(to, f)
	return err
}
