package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"cyclecap/serve"

	"github.com/urfave/cli/v2"
)

// keysVariable is the environment variable with API keys, separated by commas.
const keysVariable = "CYCLECAP_API_KEYS"

func serveCommand() *cli.Command {
	d := serve.DefaultOptions()
	return &cli.Command{
		Name:      "serve",
		Usage:     "answer requests for captions and features over HTTP, with a page",
		UsageText: "[--listen ADDRESS] [--config FILE.toml] [--clip F --decoder F [--gpt2 F] [--generator F]] [options]",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "listen", Value: d.Listen, Usage: "listen on `ADDRESS`; only this machine reaches a loopback address, whose Host headers are checked"},
			&cli.PathFlag{Name: "config", Usage: "read the options and several models from `FILE`; options given here come first"},
			&cli.StringFlag{Name: "name", Usage: "call the model of the options `NAME`", DefaultText: "world for the models in the program, otherwise default"},
		}, modelFlags(), []cli.Flag{
			&cli.IntFlag{Name: "queue", Value: d.Queue, Usage: "let `N` requests wait; more are answered with 429"},
			&cli.DurationFlag{Name: "queue-timeout", Value: d.QueueTimeout, Usage: "let a request wait for at most `TIME`"},
			&cli.DurationFlag{Name: "batch-window", Value: d.BatchWindow, Usage: "wait for `TIME` (such as 5ms) for requests of the same kind, and compute them together; low-order bits then depend on other requests", DefaultText: "each request by itself"},
			&cli.IntFlag{Name: "max-batch", Value: d.MaxBatch, Usage: "compute at most `N` photos and texts of several requests together"},
			&cli.Int64Flag{Name: "max-body", Value: d.MaxBody, Usage: "refuse requests of more than `N` bytes"},
			&cli.IntFlag{Name: "max-pixels", Value: d.MaxPixels, Usage: "refuse pictures of more than `N` pixels"},
			&cli.IntFlag{Name: "max-items", Value: d.MaxItems, Usage: "refuse requests with more than `N` pictures and texts"},
			&cli.Int64Flag{Name: "max-in-flight", Value: d.MaxInFlight, Usage: "refuse requests while `N` bytes of others are being read or worked on"},
			&cli.PathFlag{Name: "api-key-file", Usage: "let in only clients that send one of the keys in `FILE`, one on each line, or in " + keysVariable},
			&cli.StringSliceFlag{Name: "public", Usage: "with keys: let everyone read `WHAT`: health, metrics or page", DefaultText: strings.Join(d.Public, " and ")},
			&cli.StringSliceFlag{Name: "allow-host", Usage: "accept `NAME` in the Host header"},
			&cli.StringSliceFlag{Name: "cors-origin", Usage: "let pages of `ORIGIN` (https://example.org, or *) send requests"},
			&cli.StringSliceFlag{Name: "fetch-host", Usage: "fetch pictures that are named by a URL from `HOST`", DefaultText: "none"},
			&cli.PathFlag{Name: "tls-cert", Usage: "speak HTTPS with the certificate in `FILE` (PEM)"},
			&cli.PathFlag{Name: "tls-key", Usage: "with --tls-cert: its key in `FILE` (PEM)"},
			&cli.DurationFlag{Name: "drain-pause", Value: d.DrainPause, Usage: "after SIGTERM: be unready for `TIME` before connections are refused"},
			&cli.DurationFlag{Name: "drain-timeout", Value: d.DrainTimeout, Usage: "after that: give requests `TIME` to finish"},
		}, decodeFlags(), computeFlags()),
		Description: `Without --clip and --config, serve has the small models in the program itself,
which know only the drawn scenes of cyclecap world.

Clients of OpenAI's and Ollama's APIs and of KServe's Open Inference Protocol can
use it, and there is a page at /. docs/serve.md lists the routes and the keys of
FILE. A model has its name for the best caption that it writes, and NAME:direct
or NAME:textualised for a certain one.

The items of a request are computed by themselves, so the bits of an answer do
not depend on other requests, unless --batch-window joins them. With --fast or
--dtype int8 and AVX-512, requests are joined where that changes no bit.

SIGTERM or Ctrl-C finishes the requests that have begun, and the exit code is 0.
SIGHUP loads the models, the keys and the TLS certificate again.

EXAMPLES:
   cyclecap serve
   curl -F image=@photo.jpg http://127.0.0.1:8080/caption
   cyclecap serve --clip ViT-B-32.pt --decoder coco_prefix.pt --gpt2 gpt2/ --batch-window 5ms
   cyclecap serve --config serve.toml --listen :8443 --tls-cert cert.pem --tls-key key.pem`,
		Action: runServer,
	}
}

func runServer(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("serve takes no arguments, got %q; see `cyclecap serve --help`", c.Args().First())
	}
	o, err := serveOptions(c)
	if err != nil {
		return err
	}
	ownSignals(c.Context)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	hangUp, reload := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(hangUp, syscall.SIGHUP)
	defer signal.Stop(hangUp)
	go func() {
		for range hangUp {
			select {
			case reload <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	s, err := serve.New(o)
	if err != nil {
		return err
	}
	return s.Run(ctx, reload, func(at net.Addr) {
		scheme := "http"
		if o.TLSCert != "" {
			scheme = "https"
		}
		o.Log.Info("listening", "url", fmt.Sprintf("%s://%s/", scheme, at))
	})
}

// serveOptions returns the options of the file and of the flags.
func serveOptions(c *cli.Context) (o serve.Options, err error) {
	o = serve.DefaultOptions()
	o.Log, o.Version = logger(c), version()
	if n := c.String("normalize"); n != "auto" && n != "yes" && n != "no" {
		return o, usagef("--normalize %s: must be auto, yes or no", n)
	}
	if err := checkBatch(c); err != nil {
		return o, err
	}
	if !builtIn(c) && c.Path("clip") == "" {
		return o, usagef("--clip is required; see `cyclecap serve --help`")
	}
	decode, err := decodeOptions(c)
	if err != nil {
		return o, err
	}
	on, err := computeOf(c)
	if err != nil {
		return o, err
	}
	// Without a file of models, the options name one.
	m := serve.ModelConfig{Name: "default", Normalize: c.String("normalize"), Compute: on, Options: decode, Batch: c.Int("batch")}
	m.Files.CLIP, m.Files.CLIPConfig, m.Files.Decoder, m.Files.GPT2, m.Files.Generator = c.Path("clip"), c.Path("clip-config"), c.Path("decoder"), c.Path("gpt2"), c.Path("generator")
	if builtIn(c) {
		m.Name, m.Files, m.Gap = "world", builtInFiles(), builtInGap
	}
	if c.IsSet("name") {
		m.Name = c.String("name")
	}
	o.Models = []serve.ModelConfig{m}
	inFile := false
	if path := c.Path("config"); path != "" {
		if err := serve.ReadConfig(path, &o, serve.ModelConfig{Files: builtInFiles(), Gap: builtInGap}); err != nil {
			return o, err
		}
		inFile = o.Models[0].Name != m.Name || len(o.Models) > 1
	}
	if inFile && !builtIn(c) {
		return o, usagef("--clip and the models of --config %s: name the models in one place", c.Path("config"))
	}
	given(c, &o.Listen, "listen", c.String)
	given(c, &o.Queue, "queue", c.Int)
	given(c, &o.QueueTimeout, "queue-timeout", c.Duration)
	given(c, &o.BatchWindow, "batch-window", c.Duration)
	given(c, &o.MaxBatch, "max-batch", c.Int)
	given(c, &o.MaxBody, "max-body", c.Int64)
	given(c, &o.MaxPixels, "max-pixels", c.Int)
	given(c, &o.MaxItems, "max-items", c.Int)
	given(c, &o.MaxInFlight, "max-in-flight", c.Int64)
	given(c, &o.Public, "public", c.StringSlice)
	given(c, &o.AllowHosts, "allow-host", c.StringSlice)
	given(c, &o.Origins, "cors-origin", c.StringSlice)
	given(c, &o.FetchHosts, "fetch-host", c.StringSlice)
	given(c, &o.KeyFile, "api-key-file", c.Path)
	given(c, &o.TLSCert, "tls-cert", c.Path)
	given(c, &o.TLSKey, "tls-key", c.Path)
	given(c, &o.DrainPause, "drain-pause", c.Duration)
	given(c, &o.DrainTimeout, "drain-timeout", c.Duration)
	for key := range strings.SplitSeq(os.Getenv(keysVariable), ",") {
		if key = strings.TrimSpace(key); key != "" {
			o.Keys = append(o.Keys, key)
		}
	}
	if err := o.Check(); err != nil {
		return o, usagef("%v", err)
	}
	return o, nil
}

// given sets an option that a flag was given for.
func given[T any](c *cli.Context, to *T, flag string, value func(string) T) {
	if c.IsSet(flag) {
		*to = value(flag)
	}
}

// logger returns the log of a server: lines for people on a terminal, and otherwise JSON.
func logger(c *cli.Context) *slog.Logger {
	if isTerminal(c.App.ErrWriter) {
		return slog.New(slog.NewTextHandler(c.App.ErrWriter, nil))
	}
	return slog.New(slog.NewJSONHandler(c.App.ErrWriter, nil))
}
