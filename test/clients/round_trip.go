// usage: go run round_trip.go      (PGHOST, PGUSER, ... say where)
//
// A lock by lock_request() and by lock_event(), with database/sql and lib/pq.
package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"

	"github.com/lib/pq"
)

type object map[string]interface{}

// Reply has the members of all replies; a pointer is nil where one is absent.
type Reply struct {
	Success   *bool     `json:"success"`
	Code      string    `json:"code"`
	Key       string    `json:"key"`
	CallingFn string    `json:"callingFn"`
	Acquired  *bool     `json:"acquired"`
	Released  *bool     `json:"released"`
	Exists    *bool     `json:"exists"`
	Timeout   *float64  `json:"timeout"`
	Timestamp string    `json:"timestamp"`
	Token     *int64    `json:"token"`
	LockInfo  *LockInfo `json:"lockInfo"`
}

type LockInfo struct {
	Key            string   `json:"key"`
	CallingFn      string   `json:"callingFn"`
	Timestamp      string   `json:"timestamp"`
	TimeoutSeconds *float64 `json:"timeoutSeconds"`
	AppID          string   `json:"appId"`
}

func lockRequest(conn *sql.Conn, request object) (reply Reply) {
	text, err := json.Marshal(request)
	must(err)
	var answer []byte
	must(conn.QueryRowContext(context.Background(), "SELECT lock_request($1)", string(text)).Scan(&answer))
	must(json.Unmarshal(answer, &reply))
	return reply
}

func lockEvent(conn *sql.Conn, action string, payload, eventMeta object) (object, error) {
	text, err := json.Marshal(payload)
	must(err)
	meta, err := json.Marshal(eventMeta)
	must(err)
	var answer []byte
	err = conn.QueryRowContext(context.Background(), "SELECT lock_event($1, $2, $3)",
		action, string(text), string(meta)).Scan(&answer)
	if err != nil {
		return nil, err
	}
	return decode(answer), nil
}

// decode keeps numbers as they are written.
func decode(text []byte) (value object) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	must(decoder.Decode(&value))
	return value
}

func must(err error) {
	if err != nil {
		fmt.Println("not ok -", err)
		os.Exit(1)
	}
}

func expect(what string, actual, expected interface{}) {
	if !reflect.DeepEqual(actual, expected) {
		a, _ := json.Marshal(actual)
		e, _ := json.Marshal(expected)
		fmt.Printf("not ok - %s: %s instead of %s\n", what, a, e)
		os.Exit(1)
	}
}

func yes() *bool             { value := true; return &value }
func no() *bool              { return new(bool) }
func num(n float64) *float64 { return &n }

func requests(first, second *sql.Conn) {
	key := "go-report"
	acquire := object{"operation": "acquire", "key": key, "timeout": 300, "callingFn": "report"}

	lock := lockRequest(first, acquire)
	expect("acquired", lock.Acquired, yes())
	expect("timeout", lock.Timeout, num(300))
	expect("callingFn", lock.CallingFn, "report")
	fmt.Println("ok - acquired with a timeout")

	var token int64
	must(first.QueryRowContext(context.Background(), "SELECT token FROM lock_check($1)", key).Scan(&token))
	expect("token", lock.Token, &token)
	fmt.Println("ok - the token is an int64, and exact")

	expect("second", lockRequest(second, acquire), Reply{Key: key, CallingFn: "report", Acquired: no()})
	acquire["onConflict"] = "error"
	conflict := lockRequest(second, acquire)
	expect("conflict", conflict.Success, no())
	expect("conflict", conflict.Code, "LOCK_CONFLICT")
	fmt.Println("ok - a second connection is refused")

	check := lockRequest(second, object{"operation": "check", "key": key})
	expect("exists", check.Exists, yes())
	expect("lockInfo", check.LockInfo, &LockInfo{key, "report", lock.Timestamp, num(300), os.Getenv("PGUSER")})
	fmt.Println("ok - check says who holds it")

	release := func(token int64) *bool {
		return lockRequest(first, object{"operation": "release", "key": key, "token": token}).Released
	}
	expect("another token", release(token+1), no())
	expect("its token", release(token), yes())
	expect("again", release(token), no())
	check = lockRequest(second, object{"operation": "check", "key": key})
	expect("exists", check.Exists, no())
	expect("lockInfo", check.LockInfo, (*LockInfo)(nil))
	fmt.Println("ok - released with its token, once")

	for _, bad := range []object{
		{"operation": "acquire", "key": "large-data-file.csv"},
		{"operation": "acquire", "key": key, "timeout": 21600},
		{"operation": "acquire", "key": key, "timeout": "300"},
		{"operation": "acquire", "key": key, "timeOut": 300},
		{"operation": "acquire", "key": 1},
		{"operation": "acquire"},
		{"key": key},
		{},
	} {
		reply := lockRequest(first, bad)
		expect(fmt.Sprint(bad), reply.Success, no())
		expect(fmt.Sprint(bad), reply.Code, "VALIDATION_ERROR")
	}
	fmt.Println("ok - bad input is a VALIDATION_ERROR")
}

func events(first, second *sql.Conn) {
	id := "9223372036854775807"
	meta := object{"inputElement": "parameters", "outputElement": "result",
		"parameters": object{"expiry": 10000, "allowNoLock": true}}

	payload := func(result string) object {
		return decode([]byte(`{"parameters": {"id": ` + id +
			`, "amount": 12.50, "whole": 12345678901234567890` + result + `}}`))
	}
	plain, locked, free := payload(""), payload(`, "result": {"locked": true}`), payload(`, "result": {"locked": false}`)

	for _, step := range []struct {
		conn     *sql.Conn
		action   string
		expected object
	}{
		{first, "TryLock", locked},
		{second, "TryLock", free},
		{second, "CheckLock", locked},
		{first, "Unlock", plain},
		{second, "CheckLock", free},
	} {
		if step.action == "Unlock" {
			check := lockRequest(second, object{"operation": "check", "key": id})
			expect("timeoutSeconds", check.LockInfo.TimeoutSeconds, num(10))
		}
		reply, err := lockEvent(step.conn, step.action, plain, meta)
		must(err)
		expect(step.action, reply, step.expected)
	}
	fmt.Println("ok - TryLock, CheckLock and Unlock; the numbers of the payload are unchanged")

	_, err := lockEvent(first, "TryLock", object{"id": 1}, object{"parameters": object{"expiry": 0}})
	var pqError *pq.Error
	if !errors.As(err, &pqError) {
		must(errors.New("expiry 0 went through"))
	}
	expect("expiry 0", strconv.Quote(string(pqError.Code)), strconv.Quote("22023"))
	fmt.Println("ok - a bad parameter raises")
}

func main() {
	db, err := sql.Open("postgres", "")
	must(err)
	first, err := db.Conn(context.Background())
	must(err)
	second, err := db.Conn(context.Background())
	must(err)
	requests(first, second)
	events(first, second)
}
