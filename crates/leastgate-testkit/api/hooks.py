"""What Schemathesis can't know of the admin API: a check of its own, and where its requests come from."""

import itertools
import json
import os
import re

import schemathesis
from urllib3.util import connection

# Refused credentials are limited by source, and the checks of authentication want each answered with 401: each
# connection comes from an address of the loopback of its own. The suite's test closes each after one request.
sources = (f"127.{n // 62_500 % 250 + 1}.{n // 250 % 250 + 1}.{n % 250 + 1}" for n in itertools.count())
connect = connection.create_connection


def connect_from_elsewhere(address, timeout, source_address=None, socket_options=None):
    return connect(address, timeout, source_address or (next(sources), 0), socket_options)


connection.create_connection = connect_from_elsewhere


# The administrator that all of it is done as.
OWN = os.environ["LEASTGATE_OWN"].split(",")

# By call, what can't be drawn, such as the id of a decision or an exported token: every other request has it.
GIVEN = json.loads(os.environ["LEASTGATE_GIVEN"])
turns = {label: itertools.cycle([True, False]) for label in GIVEN}


@schemathesis.hook
def before_call(ctx, case, kwargs):
    # Nobody saws off the branch: from then on every answer would be 401.
    if case.path_parameters and case.path_parameters.get("id") in OWN:
        case.path_parameters["id"] = "nobody-such"
    label = case.operation.label
    if label in GIVEN and case.meta is not None and case.meta.generation.mode.is_positive and next(turns[label]):
        values = GIVEN[label]
        case.path_parameters = values.get("path", case.path_parameters)
        case.body = values.get("body", case.body)
        case.headers.update(values.get("headers", {}))


@schemathesis.check
def what_is_documented_is_read(ctx, response, case):
    """A refusal that names a line and a column was the reader's: what the document permits must be read.

    Three things no schema here can say, and descriptions do: 1.0 is no integer, 1969 no moment, and no life is over a
    hundred years.
    """
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code not in (400, 422):
        return
    detail = response.json().get("detail", "")
    known = r"floating point `-?\d+\.0`|^a moment is written as|^a life is a whole number"
    unread = re.search(r"at line \d+ column \d+", detail) and not re.search(known, detail)
    assert not unread, f"the document permits it, and it can't be read: {detail}"
