package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"cyclecap/data/tokenizer"

	"github.com/urfave/cli/v2"
)

func tokenizeCommand() *cli.Command {
	return &cli.Command{
		Name:      "tokenize",
		Usage:     "turn texts into token ids: JSON strings in, JSON arrays out, a line each",
		UsageText: "--tokenizer clip|gpt2 < texts.jsonl > ids.jsonl",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "tokenizer", Usage: "`NAME`: clip (lower-cased BPE, as OpenAI's CLIP) or gpt2"},
		},
		Description: `The ids have no start and end tokens, and names of special tokens in a text
are plain text.

EXAMPLES:
   echo '"A man riding a wave."' | cyclecap tokenize --tokenizer gpt2
   jq -c '.annotations[].caption' captions_val2014.json | cyclecap tokenize --tokenizer clip`,
		Action: func(c *cli.Context) error {
			if err := need(c, "tokenizer"); err != nil {
				return err
			}
			if c.Args().Present() {
				return usagef("tokenize reads standard input and takes no argument, not %q", c.Args().First())
			}
			var t tokenizer.Tokenizer
			switch name := c.String("tokenizer"); name {
			case "clip":
				t = tokenizer.CLIP()
			case "gpt2":
				t = tokenizer.GPT2()
			default:
				return usagef("--tokenizer %s: clip and gpt2 are possible", name)
			}
			return tokenize(c, t)
		},
	}
}

func tokenize(c *cli.Context, t tokenizer.Tokenizer) error {
	in := bufio.NewReaderSize(c.App.Reader, 1<<20)
	out := bufio.NewWriterSize(c.App.Writer, 1<<20)
	for n := 1; ; n++ {
		if err := c.Context.Err(); err != nil {
			return err
		}
		line, err := in.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		end := err != nil
		if line = bytes.TrimSpace(line); len(line) > 0 {
			var text *string
			if err := json.Unmarshal(line, &text); err != nil || text == nil {
				out.Flush()
				return fmt.Errorf("line %d is no JSON string: %.60q", n, line)
			}
			b := []byte{'['}
			for i, id := range t.Encode(*text) {
				if i > 0 {
					b = append(b, ',')
				}
				b = strconv.AppendInt(b, int64(id), 10)
			}
			out.Write(append(b, ']', '\n'))
		}
		if end {
			return out.Flush()
		}
		// Whoever talks line by line gets an answer before the next line.
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
}
