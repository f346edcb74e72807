package verify

import (
	"fmt"
	"slices"
	"strings"
)

// diagnose says in words what the rows mean, most telling first.
func (v *Verifier) diagnose() (out []string) {
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	failed := map[string][]Row{}
	bits, compared, bad := 0, 0, 0
	for _, r := range v.Rows {
		switch r.Verdict() {
		case Differs, Failed:
			bad++
			failed[r.Part] = append(failed[r.Part], r)
			compared++
		case Within, Tied:
			bits++
			compared++
		case Equal:
			compared++
		}
	}
	explained := map[string]bool{}
	for _, part := range []string{CLIP, Generator, GPT2, Decoder} {
		if v.otherFiles[part] {
			if len(failed[part]) > 0 {
				say("other weights: the file of --%s is not the one that the reference was made from", part)
				explained[part] = true
			} else {
				say("the file of --%s is another one than the reference's, but it computes the same", part)
			}
		}
	}
	if v.photosDiff != "" {
		say("other preprocessing: %s; the rest was computed from the recorded pixels", v.photosDiff)
	}
	if v.activation != "" {
		say("other activation: %s", v.activation)
		explained[CLIP] = true
	}
	for _, part := range []string{CLIP, Generator, GPT2, Decoder} {
		rows := slices.DeleteFunc(slices.Clone(failed[part]), func(r Row) bool {
			return r.Verdict() == Failed || strings.HasSuffix(r.What, "preprocessed")
		})
		if len(rows) > 0 && !explained[part] {
			say("a fault in %s: with the same weights and inputs, %q differs (%s)", part, rows[0].What, size(rows[0].Difference))
		}
	}
	ties := slices.DeleteFunc(slices.Clone(v.Rows), func(r Row) bool { return r.Verdict() != Tied })
	if len(ties) > 0 {
		say("in %d rows, tokens part where rounding decides between two; in %q %s", len(ties), ties[0].What, ties[0].Tie)
	}
	if v.Bisect {
		for _, net := range v.Nets() {
			out = append(out, v.bisected(net))
		}
	}
	for _, r := range v.Rows {
		if r.Verdict() == Failed && r.Err != v.photosDiff {
			say("%s: %s: %s", r.Part, r.What, r.Err)
		}
	}
	switch others := v.others(); {
	case bad == 0 && compared == 0:
		say("nothing was compared")
	case bad == 0 && bits == 0:
		say("all bits are equal")
	case bad == 0 && v.Here.DType == "int8":
		say("the numbers differ by no more than weights and inputs of 8 bits explain, at most %.2g of the largest in a row", v.worst())
	case bad == 0 && len(others) > 0:
		say("only low-order bits differ; %s", strings.Join(others, "; "))
	case bad == 0:
		say("only low-order bits differ, within the tolerance: the same operators, but another order of sums (a fused kernel, or another batch size)")
	case len(others) > 0 && len(out) == 0:
		say("%s", strings.Join(others, "; "))
	}
	return out
}

// worst returns the largest relative difference of a row.
func (v *Verifier) worst() (most float64) {
	for _, r := range v.Rows {
		if r.Verdict() == Within {
			most = max(most, r.Difference.Relative())
		}
	}
	return most
}

// others says in what the environments differ.
func (v *Verifier) others() (out []string) {
	r, h := v.ref.Facts.Environment, v.Here
	say := func(what, ref, here string) {
		if ref != here {
			out = append(out, fmt.Sprintf("%s: %s there, %s here", what, ref, here))
		}
	}
	say("device", r.Device, h.Device)
	if r.DeviceType == "cpu" && h.DeviceType == "cpu" {
		say("threads", fmt.Sprint(r.Threads), fmt.Sprint(h.Threads))
		say("processor", r.CPU, h.CPU)
	}
	say("dtype", r.DType, h.DType)
	say("torch", r.Versions["torch"], h.Versions["torch"])
	if h.Packed && h.DType != "int8" {
		out = append(out, "packed weights here (--fast or bf16)")
	}
	return out
}
