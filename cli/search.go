package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"cyclecap/data/embeddings"
	"cyclecap/nets/clip"
	"cyclecap/pipeline"

	"github.com/urfave/cli/v2"
)

func searchCommand() *cli.Command {
	return &cli.Command{
		Name:      "search",
		Usage:     "find the features that are most similar to texts or photos",
		UsageText: "FEATURES --clip F (--text STRING… | --image PHOTO…) [--top N] [--json]",
		Flags: append([]cli.Flag{
			clipFlag(),
			clipConfigFlag(),
			&cli.StringSliceFlag{Name: "text", Usage: "search for one or more texts, `STRING…`", KeepSpace: true},
			&cli.StringSliceFlag{Name: "image", Usage: "search for one or more photos, `PHOTO…`", KeepSpace: true},
			&cli.IntFlag{Name: "top", Value: 10, Usage: "find the `N` best for each query"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object per line for each query: query, results (row, name, score)", DisableDefaultText: true},
		}, computeFlags()...),
		Description: `FEATURES is a file of cyclecap features, a .npy file, or a folder of
clip-retrieval. The score is the cosine; all rows are compared, and of rows with
the same score the first comes first. The CLIP must be the one that computed
FEATURES. Rows are counted from 0.

EXAMPLES:
   cyclecap features --clip ViT-B-32.pt --images photos/ -o index/
   cyclecap search index/ --clip ViT-B-32.pt --text "a dog on a beach"
   cyclecap search index/ --clip ViT-B-32.pt --image dog.jpg --top 3 --json | jq -r '.results[].name'`,
		Action: search,
	}
}

// maxTop limits the memory that a mistyped --top can ask for.
const maxTop = 1_000_000

func search(c *cli.Context) error {
	texts, photos := c.StringSlice("text"), c.StringSlice("image")
	if err := need(c, "clip"); err != nil {
		return err
	}
	if c.NArg() != 1 {
		return usagef("search takes one FEATURES, got %d; see `cyclecap search --help`", c.NArg())
	}
	if (len(texts) > 0) == (len(photos) > 0) {
		return usagef("exactly one of --text and --image is required")
	}
	top := c.Int("top")
	if top < 1 || top > maxTop {
		return usagef("--top %d: must be between 1 and %d", top, maxTop)
	}
	on, err := computeOf(c)
	if err != nil {
		return err
	}
	table, err := embeddings.Open(c.Args().First())
	if err != nil {
		return err
	}
	defer table.Close()
	part := clip.Text
	if len(photos) > 0 {
		part = clip.Image
	}
	m, err := pipeline.LoadCLIP(c.Path("clip"), c.Path("clip-config"), part, on)
	if err != nil {
		return err
	}
	defer m.Close()
	notes(c, m.Notes)
	if m.Width() != table.Width {
		return fmt.Errorf("%s has features of width %d, but the CLIP %s computes features of width %d: another CLIP computed them", table.Path, table.Width, m.Path, m.Width())
	}
	if name := m.Model.Name(); table.Model != "" && !strings.HasPrefix(table.Model, "unknown") && table.Model != name {
		note(c, "the features come from a CLIP %s, and %s is a %s: scores of different CLIPs mean nothing", oneLine(table.Model), m.Path, name)
	}
	queries, err := queryFeatures(c, m, texts, photos)
	if err != nil {
		return err
	}
	bar := newProgress(c.App.ErrWriter, "features", table.Len())
	hits, err := table.Search(c.Context, queries, top, func(rows int) { bar.Set(rows, "") })
	bar.finish()
	if err != nil {
		return err
	}
	for q, query := range append(texts, photos...) {
		if err := printHits(c, table, query, hits[q], len(hits) > 1); err != nil {
			return err
		}
	}
	return nil
}

// queryFeatures returns the features of texts or photos, [n, width].
func queryFeatures(c *cli.Context, m *pipeline.CLIP, texts, photos []string) (rows []float32, err error) {
	batches := m.Texts(c.Context, texts, 32, false)
	if len(photos) > 0 {
		batches = m.Photos(c.Context, photos, 32)
	}
	for b, err := range batches {
		if long := (*pipeline.LongTextError)(nil); errors.As(err, &long) {
			return nil, fmt.Errorf("text %d has %d tokens, but this CLIP takes at most %d: %.60q", long.Index, long.Tokens, long.Room, long.Text)
		} else if err != nil {
			return nil, err
		}
		if len(b.Failed) > 0 {
			return nil, errors.New(strings.TrimPrefix(b.Failed[0].Error(), "photo: "))
		}
		rows = slices.Concat(rows, b.Rows)
	}
	return rows, nil
}

// searchResult is a line of search --json.
type searchResult struct {
	Query   string      `json:"query"`
	Results []searchHit `json:"results"`
}

type searchHit struct {
	Row   int     `json:"row"`
	Name  string  `json:"name,omitempty"`
	Score float64 `json:"score"`
}

// printHits prints the hits of a query. named says whether text names the query.
func printHits(c *cli.Context, table *embeddings.Table, query string, hits []embeddings.Hit, named bool) error {
	out := searchResult{query, make([]searchHit, len(hits))}
	rows := make([]int, len(hits))
	for i, h := range hits {
		rows[i] = h.Row
	}
	names, err := table.Names(rows)
	if err != nil {
		return err
	}
	for i, h := range hits {
		out.Results[i] = searchHit{h.Row, names[i], h.Score}
	}
	if c.Bool("json") {
		e := json.NewEncoder(c.App.Writer)
		e.SetEscapeHTML(false)
		return e.Encode(out)
	}
	if named {
		if _, err := fmt.Fprintf(c.App.Writer, "%s:\n", oneLine(query)); err != nil {
			return err
		}
	}
	for _, h := range out.Results {
		if _, err := fmt.Fprintf(c.App.Writer, "%.4f  %8d  %s\n", h.Score, h.Row, oneLine(h.Name)); err != nil {
			return err
		}
	}
	return nil
}
