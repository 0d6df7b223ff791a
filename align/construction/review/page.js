"use strict";
const items = JSON.parse(document.getElementById("items").textContent);
const by = (id) => document.getElementById(id);
// Decisions stay in this browser until they are saved, so that a closed tab loses nothing.
// A decision belongs to a key, a hash of text and images: an item that changed is undecided again.
const digest = [...items.map((item) => item.key).join("")].reduce((sum, c) => (sum * 31 + c.charCodeAt(0)) >>> 0, 7);
const place = `review-${items.length}-${digest}`;
let state = { person: "", decisions: {} };
try { state = JSON.parse(localStorage.getItem(place)) || state; } catch { /* no storage for local files in this browser */ }
let at = Math.max(items.findIndex((item) => !state.decisions[item.key]), 0);

function keepState() {
  try { localStorage.setItem(place, JSON.stringify(state)); } catch { /* as above */ }
}
function decisionOf(item) { return state.decisions[item.key] || { decision: "", note: "" }; }

function show() {
  const item = items[at];
  const made = items.filter((one) => decisionOf(one).decision).length;
  by("count").textContent = `${made} of ${items.length} decided`;
  if (!item) { by("place").textContent = "There are no items."; return; }
  by("place").textContent = `Item ${at + 1} of ${items.length}: ${item.id}`;
  by("category").textContent = item.category;
  for (const name of ["query", "leak", "element"]) by(name).textContent = item[name] || "-";
  for (const name of ["image", "benign"]) {
    by(name).hidden = !item[name];
    if (item[name]) by(name).src = item[name]; else by(name).removeAttribute("src");
  }
  by("twin").hidden = !item.benign;
  blur(true);
  by("note").value = decisionOf(item).note;
  for (const name of ["keep", "drop"]) by(name).setAttribute("aria-pressed", decisionOf(item).decision === name);
}
function blur(on) {
  for (const name of ["image", "benign"]) by(name).classList.toggle("blurred", on);
  by("show").setAttribute("aria-pressed", !on);
  by("show").textContent = on ? "Show images (space)" : "Blur images (space)";
}
function decide(decision) {
  state.decisions[items[at].key] = { decision, note: by("note").value };
  keepState();
  if (decision && at < items.length - 1) at += 1;
  show();
}
function move(step) { at = Math.min(Math.max(at + step, 0), items.length - 1); show(); }

function save() {
  const person = by("person").value.trim();
  if (!person) { by("person").focus(); by("count").textContent = "Give your name first: agreement is between people."; return; }
  const decided = items.filter((item) => decisionOf(item).decision);
  const decisions = decided.map((item) => ({ id: item.id, key: item.key, ...decisionOf(item) }));
  const text = JSON.stringify({ schema: 1, person, decisions }, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `decisions-${person.replace(/[^\w-]+/g, "_")}.json`;
  link.click();
  URL.revokeObjectURL(link.href);
}

by("person").value = state.person;
by("person").addEventListener("input", () => { state.person = by("person").value; keepState(); });
by("note").addEventListener("input", () => {
  state.decisions[items[at].key] = { ...decisionOf(items[at]), note: by("note").value };
  keepState();
});
by("show").addEventListener("click", () => blur(!by("image").classList.contains("blurred")));
by("keep").addEventListener("click", () => decide("keep"));
by("drop").addEventListener("click", () => decide("drop"));
by("undo").addEventListener("click", () => decide(""));
by("previous").addEventListener("click", () => move(-1));
by("next").addEventListener("click", () => move(1));
by("save").addEventListener("click", save);
const keys = {
  k: () => decide("keep"), d: () => decide("drop"), u: () => decide(""), s: save,
  ArrowLeft: () => move(-1), ArrowRight: () => move(1), " ": () => by("show").click(),
};
document.addEventListener("keydown", (event) => {
  const typing = event.target.tagName === "INPUT";
  const onButton = event.target.tagName === "BUTTON" && event.key === " ";
  if (typing || onButton || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});
show();
