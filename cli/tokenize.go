package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"cyclecap/data/tokenizer"
	"cyclecap/pipeline"

	"github.com/urfave/cli/v2"
)

func tokenizeCommand() *cli.Command {
	return &cli.Command{
		Name:      "tokenize",
		Usage:     "convert texts to token ids: JSON strings in, JSON arrays out, one per line",
		UsageText: "--tokenizer clip|gpt2|FOLDER < texts.jsonl > ids.jsonl",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "tokenizer", Usage: "use tokenizer `NAME`: clip (lower-cased BPE, as in OpenAI's CLIP), gpt2, or that of a GPT-2 in a folder with tokenizer.json or vocab.json"},
		},
		Description: `No start and end tokens are added. A special token that a text spells out, such
as <|endoftext|>, is read as that token, as in OpenAI's CLIP and transformers'
GPT-2. The command stops at the first line that is not a JSON string.

EXAMPLES:
   echo '"A man riding a wave."' | cyclecap tokenize --tokenizer gpt2
   jq -c '.annotations[].caption' captions_val2014.json | cyclecap tokenize --tokenizer clip`,
		Action: func(c *cli.Context) error {
			if err := need(c, "tokenizer"); err != nil {
				return err
			}
			if c.Args().Present() {
				return usagef("tokenize reads standard input and takes no arguments, got %q", c.Args().First())
			}
			var t tokenizer.Tokenizer
			switch name := c.String("tokenizer"); name {
			case "clip":
				t = tokenizer.CLIP()
			case "gpt2":
				t = tokenizer.GPT2()
			default:
				if info, err := os.Stat(name); err != nil || !info.IsDir() {
					return usagef("--tokenizer %s: must be clip or gpt2, or the folder of a GPT-2", name)
				}
				var err error
				if t, err = pipeline.LoadTokenizer(name); err != nil {
					return err
				}
			}
			return tokenize(c, t)
		},
	}
}

func tokenize(c *cli.Context, t tokenizer.Tokenizer) error {
	in := bufio.NewReaderSize(c.App.Reader, 1<<20)
	out := bufio.NewWriterSize(c.App.Writer, 1<<20)
	fail := func(format string, args ...any) error {
		out.Flush() // the lines before the bad one are answered
		return fmt.Errorf("standard input: "+format, args...)
	}
	var ids []byte
	empty := 0
	for n := 1; ; n++ {
		if err := c.Context.Err(); err != nil {
			return err
		}
		line, err := in.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fail("%w", err)
		}
		end := err != nil
		line = bytes.TrimSpace(line)
		switch {
		case len(line) > 0 && empty > 0:
			return fail("line %d is empty; every line must be a JSON string (\"\" for an empty text)", empty)
		case len(line) > 0:
			var text *string
			if err := json.Unmarshal(line, &text); err != nil || text == nil {
				return fail("line %d is not a JSON string: %.60q", n, line)
			}
			ids = append(ids[:0], '[')
			for i, id := range t.Encode(*text) {
				if i > 0 {
					ids = append(ids, ',')
				}
				ids = strconv.AppendInt(ids, int64(id), 10)
			}
			if _, err := out.Write(append(ids, ']', '\n')); err != nil {
				return err
			}
		case empty == 0 && !end:
			empty = n // an error unless nothing follows
		}
		if end {
			return out.Flush()
		}
		// A program that sends one line at a time gets each answer before it
		// sends the next line.
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
}
