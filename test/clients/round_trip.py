"""usage: python3 round_trip.py      (PGHOST, PGUSER, ... say where)

A lock by lock_request() and by lock_event(), with psycopg2.
"""
import os
import sys

import psycopg2
from psycopg2.extras import Json


def connect():
    connection = psycopg2.connect("")
    connection.autocommit = True
    return connection


def lock_request(connection, **request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT lock_request(%s)", (Json(request),))
        return cursor.fetchone()[0]


def lock_event(connection, action, payload, event_meta):
    with connection.cursor() as cursor:
        cursor.execute("SELECT lock_event(%s, %s, %s)",
                       (action, Json(payload), Json(event_meta)))
        return cursor.fetchone()[0]


def expect(what, actual, expected):
    if actual != expected:
        sys.exit(f"not ok - {what}: {actual!r} instead of {expected!r}")


def requests(first, second):
    key = "python-report"
    lock = lock_request(first, operation="acquire", key=key, timeout=300, callingFn="report")
    expect("acquire", (lock.get("acquired"), lock.get("timeout"), lock.get("callingFn")), (True, 300, "report"))
    print("ok - acquired with a timeout")

    with first.cursor() as cursor:
        cursor.execute("SELECT token FROM lock_check(%s)", (key,))
        expect("token", (type(lock["token"]), lock["token"]), (int, cursor.fetchone()[0]))
    print("ok - the token is an int, and exact")

    reply = lock_request(second, operation="acquire", key=key, timeout=300, callingFn="report")
    expect("second", reply, {"key": key, "callingFn": "report", "acquired": False})
    reply = lock_request(second, operation="acquire", key=key, onConflict="error")
    expect("conflict", (reply["success"], reply["code"]), (False, "LOCK_CONFLICT"))
    print("ok - a second connection is refused")

    reply = lock_request(second, operation="check", key=key)
    expect("check", reply["exists"], True)
    expect("check", reply["lockInfo"], {
        "key": key, "callingFn": "report", "timestamp": lock["timestamp"],
        "timeoutSeconds": 300, "appId": os.environ["PGUSER"]})
    print("ok - check says who holds it")

    def released(token):
        return lock_request(first, operation="release", key=key, token=token)["released"]

    expect("release", [released(lock["token"] + n) for n in (1, 0, 0)], [False, True, False])
    expect("check", lock_request(second, operation="check", key=key)["lockInfo"], None)
    print("ok - released with its token, once")

    for bad in ({"key": "large-data-file.csv"}, {"key": key, "timeout": 21600}, {"key": key, "timeout": "300"},
                {"key": key, "timeOut": 300}, {"key": key, "timeout": 1e300}, {"key": 1}, {}):
        reply = lock_request(first, operation="acquire", **bad)
        expect(bad, (reply.get("success"), reply.get("code")), (False, "VALIDATION_ERROR"))
    print("ok - bad input is a VALIDATION_ERROR")


def events(first, second):
    # an id beyond 2^53, and numbers with more digits than a float has
    event_id = 9223372036854775807
    meta = {"inputElement": "parameters", "outputElement": "result",
            "parameters": {"expiry": 10000, "allowNoLock": True}}

    def payload(**result):
        parameters = {"id": event_id, "small": 0.1, "whole": 12345678901234567890}
        return {"parameters": {**parameters, "result": result} if result else parameters}

    expect("TryLock", lock_event(first, "TryLock", payload(), meta), payload(locked=True))
    expect("TryLock", lock_event(second, "TryLock", payload(), meta), payload(locked=False))
    expect("CheckLock", lock_event(second, "CheckLock", payload(), meta), payload(locked=True))
    reply = lock_request(first, operation="check", key=str(event_id))
    expect("id", reply["lockInfo"]["timeoutSeconds"], 10)
    expect("Unlock", lock_event(first, "Unlock", payload(), meta), payload())
    expect("CheckLock", lock_event(second, "CheckLock", payload(), meta), payload(locked=False))
    print("ok - TryLock, CheckLock and Unlock; the numbers of the payload are unchanged")

    try:
        lock_event(first, "TryLock", {"id": 1}, {"parameters": {"expiry": 0}})
        sys.exit("not ok - expiry 0 went through")
    except psycopg2.errors.InvalidParameterValue:
        print("ok - a bad parameter raises")


first, second = connect(), connect()
requests(first, second)
events(first, second)
