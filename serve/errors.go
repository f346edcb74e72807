package serve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"cyclecap/data/photo"
	"cyclecap/pipeline"
)

// An Error is the answer to a request that failed. Each protocol has a form of its own for it.
type Error struct {
	Status  int    // HTTP
	Code    string // for programs, such as "invalid_image"
	Param   string // the part of the request that is wrong, or ""
	Message string // for people
	// RetryAfter is sent with 429 and 503.
	RetryAfter time.Duration
}

func (e *Error) Error() string { return e.Message }

// bad returns an error in a part of the request.
func bad(code, param, format string, args ...any) *Error {
	return &Error{Status: http.StatusBadRequest, Code: code, Param: param, Message: fmt.Sprintf(format, args...)}
}

// invalid returns an error in the value of a parameter.
func invalid(param, format string, args ...any) *Error {
	return bad("invalid_value", param, param+": "+format, args...)
}

// badImage returns the error of a picture that cannot be read. It is never a 5xx: clients
// would send the same picture again.
func badImage(param string, err error) *Error {
	e := bad("invalid_image", param, "%s: %v", param, trimPhoto(err))
	if errors.Is(err, photo.ErrTooLarge) {
		e.Status, e.Code = http.StatusRequestEntityTooLarge, "image_too_large"
	}
	return e
}

// asError returns the answer to a request that failed with err.
func asError(err error) *Error {
	var e *Error
	var large *http.MaxBytesError
	var long *pipeline.LongTextError
	var finite *pipeline.NotFiniteError
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &large):
		return &Error{Status: http.StatusRequestEntityTooLarge, Code: "request_too_large", Message: fmt.Sprintf("the request has more than the %d bytes that this server accepts (--max-body)", large.Limit)}
	case errors.As(err, &long):
		return bad("text_too_long", "", "%v", err)
	case errors.As(err, &finite):
		return &Error{Status: http.StatusInternalServerError, Code: "not_finite", Message: err.Error()}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		// Nobody reads this: the client has gone.
		return &Error{Status: statusClientClosed, Code: "client_closed", Message: "the client closed the request"}
	}
	return &Error{Status: http.StatusInternalServerError, Code: "internal_error", Message: "internal error; the server's log says more under the id of this request"}
}

// statusClientClosed is nginx's status for a client that did not wait for the answer.
const statusClientClosed = 499

// busy is the answer while the queue is full.
func busy(after time.Duration) *Error {
	return &Error{Status: http.StatusTooManyRequests, Code: "queue_full", Message: "the server is busy: its queue is full", RetryAfter: after}
}

// retryHeader sets Retry-After, in whole seconds.
func (e *Error) retryHeader(h http.Header) {
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
}
