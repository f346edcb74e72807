package pipeline_test

import (
	"math"
	"strings"
	"testing"

	"cyclecap/pipeline"
)

// TestShortTexts computes texts up to the end of the longest in a batch. Only low-order bits
// may change, whatever the length of the others: 1.4e-6 at most, of 4.2, on an Intel Xeon.
func TestShortTexts(t *testing.T) {
	whole, err := pipeline.Load(world, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	short, err := pipeline.Load(world, pipeline.Options{ShortTexts: true})
	if err != nil {
		t.Fatal(err)
	}
	defer short.Close()
	long := strings.Repeat("a red cup on a table ", 30) // more than the context
	for _, texts := range [][]string{{""}, {"a"}, {"a red cup", "two dogs play in the snow!", "!"}, {"a", long}, {long}} {
		var rows [2][]float32
		for i, c := range []*pipeline.CLIP{whole.CLIP, short.CLIP} {
			for f, err := range c.Texts(t.Context(), texts, 8, true) {
				if err != nil {
					t.Fatal(err)
				}
				rows[i] = append(rows[i], f.Rows...)
			}
		}
		largest, most := 0.0, 0.0
		for i, v := range rows[0] {
			largest = max(largest, math.Abs(float64(v)))
			most = max(most, math.Abs(float64(v-rows[1][i])))
		}
		t.Logf("%d texts: features up to %.2g, difference %.2g", len(texts), largest, most)
		if len(rows[0]) != len(texts)*whole.CLIP.Width() || len(rows[1]) != len(rows[0]) || most > 1e-5*largest {
			t.Errorf("%.30q: the features differ by %g, the largest is %g", texts, most, largest)
		}
	}
}
