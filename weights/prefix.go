package weights

import (
	"fmt"
	"slices"
	"strings"
)

// maxWrappers limits how many parts of a prefix are removed. A checkpoint of a
// compiled model in a parallel wrapper in a training module has three.
const maxWrappers = 6

// unwrap removes a prefix that the names of all tensors share, such as the
// "module." of DataParallel, the "model." of Lightning or the "_orig_mod." of
// torch.compile, if the remaining names are those of a known model. A file that
// is recognized as it is keeps its names: the tensors of a generator begin with
// "model." too.
func (f *File) unwrap() {
	if len(f.Entries) == 0 || Detect(f) != Unknown {
		return
	}
	common := f.Entries[0].Name
	for _, e := range f.Entries {
		n := 0
		for n < min(len(common), len(e.Name)) && common[n] == e.Name[n] {
			n++
		}
		common = common[:n]
	}
	at := 0
	for range maxWrappers {
		dot := strings.IndexByte(common[at:], '.')
		if dot < 0 {
			return
		}
		at += dot + 1
		inner := *f
		inner.Entries = slices.Clone(f.Entries)
		for i := range inner.Entries {
			inner.Entries[i].Name = inner.Entries[i].Name[at:]
		}
		if Detect(&inner) != Unknown {
			f.Entries, f.Prefix = inner.Entries, common[:at]
			f.Notes = append(f.Notes, fmt.Sprintf("%s: the prefix %q of all tensor names was removed", f.Path, f.Prefix))
			return
		}
	}
}
