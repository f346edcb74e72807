"""Leaves out what does not apply to cyclecap serve: everything in a form is text, so that a value
of another type than the schema's, such as an object for a text, is a valid text. Checks what
schemathesis does not: the lines of a streamed answer, and that it has an end."""

import json

import jsonschema_rs
import schemathesis

@schemathesis.hook
def filter_case(context, case):
    form = case.media_type == "multipart/form-data"
    return not (form and case.meta is not None and case.meta.generation.mode.is_negative)


@schemathesis.check
def whole_stream(ctx, response, case):
    kind = response.headers.get("content-type", [""])[0]
    if kind == "text/event-stream":
        assert response.text.endswith("}\n\ndata: [DONE]\n\n"), response.text
    if kind != "application/x-ndjson":
        return
    document = case.operation.schema.raw_schema
    operation = document["paths"][case.operation.path][case.operation.method]
    schema = operation["responses"]["200"]["content"][kind]["schema"]
    validator = jsonschema_rs.Draft202012Validator(schema | {"components": document["components"]})
    *lines, rest = response.text.split("\n")
    assert rest == "", response.text
    lines = [json.loads(line) for line in lines]
    for line in lines:
        if not validator.is_valid(line):
            raise AssertionError(f"{line} is not {schema}")
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True], response.text
