"use strict";
// Polls /status and shows it. Everything in it is text: a rejected client may have written part of
// it, so nothing here makes markup.

const EVERY = 3000;
const MOST_ROWS = 500;
const TONES = {
  in_use: "good", waiting: "calm", unknown: "calm", not_yet_valid: "calm", quiet: "",
  safe_to_remove: "go", expired: "bad", error: "bad", warning: "warn",
};
// What has to be done outweighs the state.
const URGENT = { none: null, soon: "warn", now: "bad" };

const byId = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
let at = new Date();
let responded = null;

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

// Unchanged text stays as it is, so that a selection does.
function put(element, text, className) {
  if (element.textContent !== text) element.textContent = text;
  if (className !== undefined && element.className !== className) element.className = className;
}

function ago(time) {
  if (!time) return "never";
  const seconds = Math.round((at - new Date(time)) / 1000);
  const units = [["day", 86400], ["hour", 3600], ["minute", 60]];
  for (const [unit, length] of units) {
    if (seconds >= length) return relative.format(-Math.floor(seconds / length), unit);
  }
  return seconds < 5 ? "now" : relative.format(-seconds, "second");
}

const day = (time) => time.slice(0, 10);
const clock = (time) => `${day(time)} ${time.slice(11, 19)}`;

// One row for each value, kept while its key stays.
function rows(list, values, key, build) {
  const old = new Map([...list.children].map((row) => [row.key, row]));
  const seen = new Map();
  const fresh = values.map((value) => {
    const same = seen.get(key(value)) ?? 0;
    seen.set(key(value), same + 1);
    const name = `${key(value)} ${same}`;
    let row = old.get(name);
    if (!row) {
      row = build();
      row.key = name;
    }
    old.delete(name);
    row.show(value);
    return row;
  });
  if (fresh.some((row, index) => list.children[index] !== row) || old.size > 0) {
    list.replaceChildren(...fresh);
  }
}

function certificateRow() {
  const file = make("div", "file");
  const print = make("div", "print");
  const about = make("div", "quiet");
  const step = make("div", "wrapped");
  const verdict = make("p", "chip");
  const fill = make("span", "");
  const bar = make("div", "bar", fill);
  bar.setAttribute("role", "meter");
  bar.setAttribute("aria-label", "lifetime left");
  const left = make("div", "quiet left");
  const numbers = ["last seen", "connections", "requests"].map((name) => {
    const value = make("b", "");
    return [make("div", "", value, document.createElement("br"), make("span", "", name)), value];
  });
  const figures = make("div", "numbers", ...numbers.map(([cell]) => cell));
  const row = make("li", "certificate",
    make("div", "", make("div", "verdict", verdict), step, file, print, about),
    make("div", "", bar, left), figures);
  row.show = (it) => {
    const tone = URGENT[it.urgency] ?? TONES[it.state] ?? "";
    put(verdict, it.verdict, `chip ${tone}`);
    put(step, it.next_step ? `Next: ${it.next_step}.` : "");
    step.hidden = !it.next_step;
    put(file, it.file);
    put(print, it.fingerprint);
    const role = it.role === "anchor" ? ", a CA" : "";
    put(about, it.key ? `${it.subject}, serial ${it.serial}, ${it.key}${role}` : it.subject);
    const share = Math.round(it.life_left * 1000) / 10;
    bar.className = `bar ${URGENT[it.urgency] ?? "good"}`;
    bar.setAttribute("aria-valuenow", share);
    fill.style.width = `${share}%`;
    const days = it.days_left === 1 ? "1 day" : `${number.format(it.days_left)} days`;
    put(left, it.state === "expired" ? `ended ${day(it.not_after)}`
      : `${days} left, until ${day(it.not_after)}`);
    figures.hidden = it.requests === undefined;
    if (!figures.hidden) {
      put(numbers[0][1], ago(it.last_seen));
      put(numbers[1][1], number.format(it.connections));
      put(numbers[2][1], number.format(it.requests));
    }
  };
  return row;
}

function problemRow() {
  const severity = make("p", "chip");
  const problem = make("div", "wrapped");
  const remedy = make("div", "quiet wrapped");
  const row = make("li", "problem", severity, make("div", "", problem, remedy));
  row.show = (it) => {
    put(severity, it.severity, `chip ${TONES[it.severity] ?? ""}`);
    put(problem, `${it.file}${it.line ? `:${it.line}` : ""}: ${it.problem}`);
    put(remedy, it.remedy);
  };
  return row;
}

function refusalRow() {
  const reason = make("p", "chip bad");
  const when = make("div", "when");
  const peer = make("div", "quiet");
  const who = make("div", "wrapped");
  const print = make("div", "print");
  const nearest = make("div", "wrapped");
  const remedy = make("div", "quiet wrapped");
  const row = make("li", "refusal", make("div", "", reason, when, peer),
    make("div", "", who, print, nearest, remedy));
  row.show = (it) => {
    put(reason, it.reason.replaceAll("_", " "));
    put(when, clock(it.at));
    const dates = it.not_before ? `, ${day(it.not_before)} to ${day(it.not_after)}` : "";
    const serial = it.serial ? `, serial ${it.serial}` : "";
    put(peer, it.peer);
    put(who, it.subject === null ? it.detail ?? "" : `${it.subject}${serial}${dates}`);
    put(print, it.fingerprint ?? "");
    put(nearest, it.nearest ? `Nearest: ${it.nearest}` : "");
    put(remedy, it.remedy);
  };
  return row;
}

function showAcme(acme, server) {
  const failed = acme?.last_failure;
  byId("acme").hidden = !acme;
  if (!acme) return;
  const next = acme.next_attempt ? `, next order ${day(acme.next_attempt)} ${clock(acme.next_attempt)} UTC` : "";
  put(byId("order"), `${server ? "Renewed" : "Being ordered"} for ${acme.domains.join(", ")} from ${acme.directory}${next}`);
  byId("failure").hidden = !failed;
  if (failed) {
    const type = failed.problem_type ? ` (${failed.problem_type})` : "";
    put(byId("failure"), `The last order failed at ${clock(failed.at)} UTC, step ${failed.step}${type}: ${failed.detail}`);
  }
}

function figureRow() {
  const name = make("dt", "");
  const value = make("dd", "");
  const row = make("div", "", name, value);
  row.show = ([label, count]) => {
    put(name, label);
    put(value, number.format(count));
  };
  return row;
}

const sum = (values) => values.reduce((total, value) => total + value, 0);

function show(status) {
  at = new Date(status.at);
  const state = status.ready ? "ready" : `not ready: ${status.not_ready}`;
  put(byId("state"), state, `chip ${status.ready ? "good" : "bad"}`);
  document.title = `${status.ready ? "ready" : "not ready"} · portcullis`;
  put(byId("about"), `version ${status.portcullis}, generation ${status.generation}, `
    + `serving since ${clock(status.since)} UTC`);
  rows(byId("figures"), [
    ["connections", status.connections],
    ["requests", sum(status.trusted.map((it) => it.requests))],
    ["handshakes accepted", status.handshakes.accepted],
    ["clients rejected", sum(Object.values(status.handshakes.refused))],
  ], ([label]) => label, figureRow);
  byId("problem-list").hidden = status.problems.length === 0;
  rows(byId("problems"), status.problems, (it) => JSON.stringify(it), problemRow);
  rows(byId("trusted"), status.trusted.slice(0, MOST_ROWS), (it) => it.role + it.fingerprint,
    certificateRow);
  const more = status.trusted.length - MOST_ROWS;
  byId("more").hidden = more <= 0;
  put(byId("more"), `and ${more} more, in /status`);
  rows(byId("server"), status.server ? [status.server] : [], (it) => it.fingerprint, certificateRow);
  showAcme(status.acme, status.server);
  rows(byId("refusals"), status.refusals, (it) => `${it.at} ${it.peer} ${it.reason}`,
    refusalRow);
  byId("none").hidden = status.refusals.length > 0;
  put(byId("at"), `${clock(status.at)} UTC`);
}

async function poll() {
  try {
    const response = await fetch("status", { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (!response.ok) throw new Error(response.statusText);
    show(await response.json());
    responded = new Date();
  } catch {
    const since = responded ? ` since ${responded.toISOString().slice(11, 19)} UTC` : "";
    put(byId("state"), `no response${since}`, "chip bad");
    document.title = "no response · portcullis";
  }
  setTimeout(poll, EVERY);
}

poll();
