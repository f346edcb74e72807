package tokenizer

import (
	"strings"
	"testing"
)

var captions = []string{
	"A group of giraffe standing next to each other.",
	"A man riding a wave on top of a surfboard.",
	"Two dogs' owners don't see the frisbee in mid-air, 30 feet away!",
	"a black-and-white photo of a kitchen with stainless-steel appliances and wooden cabinets",
}

func BenchmarkEncode(b *testing.B) {
	texts := map[string][]string{
		"captions": captions,
		"mojibake": {"cafÃ© â€œfranÃ§aisâ€\u009d Ã\u00a0 lâ€™Ã©tÃ©"},
		"japanese": {"テーブルの上に置かれた一枚の皿とフォーク、そして赤いワインのグラス。"},
		"1MB of a": {strings.Repeat("a", 1<<20)},
	}
	for _, tok := range []struct {
		name string
		Tokenizer
	}{{"CLIP", CLIP()}, {"GPT2", GPT2()}} {
		for name, texts := range texts {
			b.Run(tok.name+"/"+name, func(b *testing.B) {
				size := 0
				for _, s := range texts {
					size += len(s)
				}
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					for _, s := range texts {
						tok.Encode(s)
					}
				}
			})
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, tok := range []struct {
		name string
		Tokenizer
	}{{"CLIP", CLIP()}, {"GPT2", GPT2()}} {
		ids := tok.Encode(strings.Join(captions, " "))
		b.Run(tok.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tok.Decode(ids); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLoad measures the cost of the first call to CLIP or GPT2.
func BenchmarkLoad(b *testing.B) {
	for name, load := range map[string]func(){
		"CLIP": func() { newBPE(clipMerges, 512, []string{clipStart, clipEnd}) },
		"GPT2": func() { newBPE(gpt2Merges, 256, []string{gpt2End}) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				load()
			}
		})
	}
}
