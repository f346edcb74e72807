package tokenizer_test

import (
	"fmt"

	"cyclecap/data/tokenizer"
)

func ExampleCLIP() {
	clip := tokenizer.CLIP()
	ids := clip.Encode("  A Photo of a caf\u00C3\u00A9 &amp; a dog\u2019s bowl ")
	text, err := clip.Decode(ids)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ids)
	fmt.Printf("%q\n", text)
	// Output:
	// [320 1125 539 320 15304 261 320 1929 568 3814]
	// "a photo of a café & a dog 's bowl "
}

func ExampleGPT2() {
	gpt2 := tokenizer.GPT2()
	ids := gpt2.Encode("A photo of a dog.")
	text, err := gpt2.Decode(ids)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ids)
	fmt.Printf("%q\n", text)
	// Output:
	// [32 4590 286 257 3290 13]
	// "A photo of a dog."
}

func ExampleCLIPTokenizer_Context() {
	clip := tokenizer.CLIP()
	ids, err := clip.Context("a photo of a dog", tokenizer.ContextLength, false)
	fmt.Println(len(ids), ids[:9], err)
	_, err = clip.Context("a photo of a dog", 6, false)
	fmt.Println(err)
	ids, err = clip.Context("a photo of a dog", 6, true)
	fmt.Println(ids, err)
	// Output:
	// 77 [49406 320 1125 539 320 1929 49407 0 0] <nil>
	// tokenizer: the text has 5 tokens, 7 with start and end, but the context has only 6: shorten the text or set truncate: "a photo of a dog"
	// [49406 320 1125 539 320 49407] <nil>
}

func ExampleTokenizer_special() {
	gpt2 := tokenizer.GPT2()
	fmt.Println(gpt2.EncodePlain("Bye.<|endoftext|>"))
	fmt.Println(gpt2.EncodeSpecial("Bye.<|endoftext|>"))
	// Output:
	// [3886 68 29847 91 437 1659 5239 91 29]
	// [3886 68 13 50256]
}
