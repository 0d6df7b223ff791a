"use strict";
// The examples browser and the light/dark button. Texts of models and data sets become text nodes only, never HTML.
(() => {
  const PAGE = 20;
  // With these verdicts a response to a harmful request is shown; with any other verdict it may be harmful.
  const GOOD = new Set(["refusal", "warning", "safe", "correct"]);
  const LOOKS = new Set([...GOOD, "unsafe", "wrong", "other", "incoherent"]);
  const byId = (id) => document.getElementById(id);
  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };

  const theme = byId("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  // Open all details for printing, and close them again afterwards.
  const closed = [];
  addEventListener("beforeprint", () => {
    closed.push(...document.querySelectorAll("details:not([open])"));
    closed.forEach((one) => { one.open = true; });
  });
  addEventListener("afterprint", () => closed.splice(0).forEach((one) => { one.open = false; }));

  // Samples of rollouts are in the page as escaped text; the examples below are made by this script.
  document.querySelectorAll(".samples .veiled").forEach((box) => {
    const [content, button] = box.children;
    button.addEventListener("click", () => {
      box.classList.remove("veiled");
      content.classList.remove("veil-content");
      content.removeAttribute("aria-hidden");
      content.tabIndex = -1;
      button.remove();
      content.focus();
    });
  });

  if (!byId("filters")) return;
  const { methods, sets, items, answers, images, first } = JSON.parse(byId("payload").textContent);
  const form = byId("filters");
  const chosen = {
    set: byId("f-set"), category: byId("f-category"), first: byId("f-first"), second: byId("f-second"), verdict: byId("f-verdict"),
  };
  let found = [];
  let start = 0;

  const fill = (select, options, keep) => {
    const before = select.value;
    select.replaceChildren(...options.map(([value, text]) => {
      const option = make("option", "", text);
      option.value = value;
      return option;
    }));
    if (keep && options.some(([value]) => value === before)) select.value = before;
  };
  const counted = (values) => {
    const counts = new Map();
    values.forEach((value) => counts.set(value, (counts.get(value) || 0) + 1));
    return [...counts].sort((a, b) => String(a[0]).localeCompare(String(b[0])));
  };
  const answerOf = (method, place) => (method === "" ? null : answers[Number(method)][place]);
  const inSet = (place) => chosen.set.value === "" || items[place].set === Number(chosen.set.value);

  const fillDependent = () => {
    const places = items.map((_, place) => place).filter(inSet);
    const categories = counted(places.map((place) => items[place].category).filter((one) => one));
    fill(chosen.category, [["", "any"], ...categories.map(([name, count]) => [name, `${name} (${count})`])], true);
    const verdicts = counted(places.map((place) => answerOf(chosen.first.value, place)).filter(Boolean).map((answer) => answer[1]));
    fill(chosen.verdict, [["", "any"], ...verdicts.map(([name, count]) => [name, `${name} (${count})`])], true);
  };

  const matches = (place) => {
    const item = items[place];
    const first = answerOf(chosen.first.value, place);
    const second = answerOf(chosen.second.value, place);
    if (!inSet(place) || !(first || second)) return false;
    if (chosen.category.value && item.category !== chosen.category.value) return false;
    if (chosen.verdict.value && !(first && first[1] === chosen.verdict.value)) return false;
    if (byId("f-differ").checked && !(first && second && first[1] !== second[1])) return false;
    const words = byId("f-words").value.trim().toLowerCase();
    if (!words) return true;
    return [item.request, item.plain, first && first[0], second && second[0]].some((text) => text && text.toLowerCase().includes(words));
  };

  const veil = (content, what, shown) => {
    if (shown) return content;
    const box = make("span", "veiled");
    const inside = make("span", "veil-content");
    inside.setAttribute("aria-hidden", "true");
    inside.append(content);
    const button = make("button", "", `Show ${what}`);
    button.type = "button";
    button.addEventListener("click", () => {
      box.replaceWith(content);
      content.tabIndex = -1;
      content.focus();
    });
    box.append(inside, button);
    return box;
  };

  const imageOf = (item) => {
    const box = make("div", "image");
    if (item.image === null) {
      box.append(make("div", "no-image", item.why));
      return box;
    }
    const image = make("img");
    image.alt = `image of ${item.id}`;
    image.addEventListener("load", () => image.classList.toggle("tiny", image.naturalWidth < 100));
    image.src = images[item.image];
    box.append(veil(image, "image", byId("f-images").checked));
    return box;
  };

  // The verdict is on the answer, so a thought about a harmful request may be harmful under any verdict.
  const thoughtBox = (thought, harmful, flags) => {
    const box = make("details", "thought");
    box.append(make("summary", "", "Thought"));
    const said = make("div");
    said.append(make("p", "said", thought));
    if (flags.includes("t")) said.append(make("p", "reason", "ended by generation.thinking=budget"));
    box.append(veil(said, "thought", !harmful || byId("f-text").checked));
    return box;
  };

  const answerBox = (method, place) => {
    const box = make("div", "answer");
    const who = make("div", "who", methods[Number(method)].name);
    box.append(who);
    const answer = answerOf(method, place);
    if (!answer) {
      box.append(make("p", "reason", "no response: this method was not evaluated on this item"));
      return box;
    }
    const [text, verdict, reason, flags, thought] = answer;
    const badge = make("span", "verdict", verdict);
    if (LOOKS.has(verdict)) badge.classList.add(verdict);
    who.append(badge);
    const unsafe = verdict === "unsafe" || (items[place].harmful && !GOOD.has(verdict));
    const said = make("div");
    said.append(make("p", "said", text || (flags.includes("d") ? "(the endpoint declined to respond)" : "(empty)")));
    if (flags.includes("c")) said.append(make("p", "reason", "truncated at max_new_tokens"));
    if (reason) said.append(make("p", "reason", `judge: ${reason}`));
    box.append(veil(said, "response", !unsafe || byId("f-text").checked));
    if (thought) box.append(thoughtBox(thought, items[place].harmful, flags));
    return box;
  };

  const entry = (place) => {
    const item = items[place];
    const line = make("li");
    const body = make("div");
    const kinds = [sets[item.set].name, item.id, item.category, item.sub, item.harmful ? "harmful" : "benign"];
    body.append(make("div", "meta", kinds.filter(Boolean).join(" · ")));
    const request = make("p", "request", item.request);
    body.append(veil(request, "request", !(item.harmful && item.tells) || byId("f-text").checked));
    if (item.plain) {
      const plain = make("p", "meta", `plain request: ${item.plain}`);
      body.append(veil(plain, "plain request", !item.harmful || byId("f-text").checked));
    }
    const both = make("div", "answers");
    both.append(answerBox(chosen.first.value, place));
    if (chosen.second.value !== "") both.append(answerBox(chosen.second.value, place));
    body.append(both);
    line.append(imageOf(item), body);
    return line;
  };

  const show = () => {
    const end = Math.min(start + PAGE, found.length);
    byId("list").replaceChildren(...found.slice(start, end).map(entry));
    const drawn = sets.filter((one) => one.shown < one.of);
    const note = drawn.length ? ` Drawn at random: ${drawn.map((one) => `${one.shown} of ${one.of} items of ${one.name}`).join(", ")}.` : "";
    byId("status").textContent = `${found.length} of ${items.length} items.${note}`;
    byId("place").textContent = found.length ? `${start + 1}-${end} of ${found.length}` : "nothing";
    byId("previous").disabled = start === 0;
    byId("next").disabled = end >= found.length;
    byId("pager").hidden = found.length <= PAGE;
  };
  const search = () => {
    fillDependent();
    found = items.map((_, place) => place).filter(matches);
    start = 0;
    show();
  };
  const turn = (by) => {
    start += by * PAGE;
    show();
    byId("status").scrollIntoView({ block: "nearest" });
  };

  fill(chosen.set, [["", "all"], ...sets.map((one, i) => [String(i), one.name])]);
  const named = methods.map((one, i) => [String(i), one.name]);
  fill(chosen.first, named);
  fill(chosen.second, [["", "nothing"], ...named]);
  chosen.set.value = String(first.set);
  chosen.first.value = String(first.method);
  chosen.second.value = first.second === null ? "" : String(first.second);
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  let waiting = 0;
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, 60);
  });
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  search();
})();
