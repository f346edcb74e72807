package serve

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"cyclecap/internal/jsonerror"
	"cyclecap/serve/fetch"
)

// A picture is an image of a request, before it is decoded.
type picture struct {
	name  string // of its file, or ""
	param string // where in the request it stands, for errors
	data  []byte
}

// readJSON reads the body of a request. Unknown keys are an error if strict is set: a misspelled
// option must not be ignored without a word. Other protocols have many options that do not
// apply here.
func readJSON(r *http.Request, to any, strict bool) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return readError(err)
	}
	return parseJSON(body, to, strict)
}

// parseJSON is readJSON for a body that has been read.
func parseJSON(body []byte, to any, strict bool) error {
	if bytes.Equal(bytes.TrimSpace(body), []byte("null")) { // encoding/json does nothing then
		return bad("invalid_json", "", "the body is null; want a JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if strict {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(to); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the body is empty")
		}
		return bad("invalid_json", "", "the body is not what this route expects: %v", jsonerror.Words(err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return bad("invalid_json", "", "the body has something after its JSON object")
	}
	return nil
}

// readError is the error of a body that did not arrive.
func readError(err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return err
	}
	return bad("incomplete_body", "", "the body could not be read: %v", err)
}

// parsePicture reads an image in JSON: a data URI, base64, or a URL of a host from which this
// server fetches.
func (s *Server) parsePicture(ctx context.Context, param, text string) (picture, error) {
	p := picture{param: param}
	encoded := text
	switch {
	case len(text) > 5 && strings.EqualFold(text[:5], "data:"):
		head, data, ok := strings.Cut(text[5:], ",")
		if !ok {
			return p, bad("invalid_image", param, "%s: the data URI has no comma", param)
		}
		kind, isBase64 := strings.CutSuffix(head, ";base64")
		if !isBase64 {
			return p, bad("invalid_image", param, "%s: the data URI must be base64 (data:image/jpeg;base64,…)", param)
		}
		if kind, _, _ := mime.ParseMediaType(kind); kind != "" && !strings.HasPrefix(kind, "image/") && kind != "application/octet-stream" {
			return p, bad("invalid_image", param, "%s: the data URI has type %.50q; want an image", param, kind)
		}
		encoded = data
	case strings.Contains(text[:min(len(text), 12)], "://"):
		data, err := s.fetch(ctx, param, text)
		p.data = data
		return p, err
	}
	data, err := decodeBase64(encoded)
	if err != nil {
		return p, bad("invalid_image", param, "%s: %v; want a data URI or the file in base64", param, err)
	}
	p.data = data
	return p, nil
}

// decodeBase64 reads base64 as clients write it: with or without padding, in the standard
// alphabet or that for URLs.
func decodeBase64(text string) ([]byte, error) {
	text = strings.TrimRight(strings.TrimSpace(text), "=")
	if text == "" {
		return nil, errors.New("it is empty")
	}
	e := base64.RawStdEncoding
	if strings.ContainsAny(text, "-_") {
		e = base64.RawURLEncoding
	}
	data, err := e.DecodeString(text)
	if err != nil {
		return nil, errors.New("it is not base64")
	}
	return data, nil
}

// fetch reads a picture from another host.
func (s *Server) fetch(ctx context.Context, param, url string) ([]byte, error) {
	if len(s.o.FetchHosts) == 0 {
		return nil, bad("url_not_allowed", param, "%s: this server does not fetch pictures from URLs; send the picture itself, as a data URI (--fetch-host lists hosts to fetch from)", param)
	}
	// A file in memory for each place.
	select {
	case s.fetching <- struct{}{}:
		defer func() { <-s.fetching }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	data, err := s.fetcher.Get(ctx, url)
	if e := (*fetch.Error)(nil); errors.As(err, &e) {
		s.o.Log.Info("a picture was not fetched", "kind", string(e.Kind), "error", e.Err)
		return nil, &Error{Status: e.Kind.Status(), Code: string(e.Kind), Param: param, Message: param + ": " + e.Error()}
	}
	return data, err
}

// prepare decodes pictures for a model. It returns the first error in their order.
func (s *Server) prepare(ctx context.Context, m *model, list []picture) ([][]float32, error) {
	out, errs := make([][]float32, len(list)), make([]error, len(list))
	var wait sync.WaitGroup
	for i, p := range list {
		// The place is taken here, so that only as many goroutines start.
		select {
		case s.decode <- struct{}{}:
		case <-ctx.Done():
			wait.Wait()
			return nil, ctx.Err()
		}
		wait.Go(func() {
			defer func() {
				<-s.decode
				if v := recover(); v != nil { // a picture must not end the server
					s.o.Log.Error("panic in the decoder of pictures", "panic", fmt.Sprint(v))
					errs[i] = badImage(p.param, errors.New("it cannot be decoded"))
				}
			}()
			begin := time.Now()
			pixels, err := m.clip.Pixels(p.data, s.o.MaxPixels)
			if err != nil {
				err = badImage(p.param, err)
			}
			out[i], errs[i] = pixels, err
			s.metrics.stage("decode", time.Since(begin))
		})
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// checkCount checks the number of pictures and texts of a request.
func (s *Server) checkCount(photos, texts int) error {
	if n := photos + texts; n > s.o.MaxItems {
		return &Error{Status: http.StatusRequestEntityTooLarge, Code: "too_many_items", Message: fmt.Sprintf("the request has %d pictures and texts; the limit is %d (--max-items): split it", n, s.o.MaxItems)}
	}
	return nil
}

// trimPhoto removes the package's name from an error of package photo.
func trimPhoto(err error) string { return strings.TrimPrefix(err.Error(), "photo: ") }
