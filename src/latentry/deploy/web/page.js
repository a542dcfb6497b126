// Sends one image to the service it came from, and shows what comes back. Pixels leave the page for nowhere else.

const element = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(share > 0.0995 || share === 0 ? 0 : 1)} %`;

class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function answerOf(route, options) {
  let response;
  try {
    response = await fetch(route, options);
  } catch {
    throw new Refused(0, "The service can't be reached.");
  }
  const content = await response.json().catch(() => ({ detail: "what came back is no answer" }));
  if (!response.ok) throw new Refused(response.status, `Refused: ${content.detail}.`);
  return content;
}

async function ask(route, file) {
  const body = new FormData();
  body.append("images", file, file.name || "pasted image");
  const token = sessionStorage.getItem("token");
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  return (await answerOf(route, { method: "POST", body, headers })).answers[0];
}

const health = await answerOf("health").catch(({ message }) => {
  element("problem").textContent = message;
  throw new Error(message);
});
let asked = 0; // what comes back for an image that was replaced meanwhile is not shown

async function show(file) {
  const turn = ++asked;
  element("problem").textContent = "";
  element("status").textContent = "";
  element("status").classList.remove("spoken");
  element("result").hidden = true;
  askForToken(null);
  if (file.size > health.body_bytes - 4096) {
    element("problem").textContent = `Refused: the image has more than ${Math.floor(health.body_bytes / 2 ** 20)} MiB.`;
    return;
  }
  element("status").textContent = "Looking at it ...";
  try {
    // One after the other, so that a bad image is refused once.
    const prediction = health.predicts ? await ask("predict?top=5", file) : null;
    const rebuilt = health.reconstructs ? await ask("reconstruct", file) : null;
    const near = health.has_neighbours ? await ask("neighbours?count=9", file) : null;
    if (turn !== asked) return;
    const said = [prediction ? showClasses(prediction.classes) : "", rebuilt ? showRebuilt(rebuilt) : ""];
    if (near) showNeighbours(near.neighbours);
    element("result").hidden = false;
    element("status").classList.add("spoken"); // the rest shows it to those who see
    element("status").textContent = said.join(" ");
  } catch (problem) {
    if (turn !== asked) return;
    element("status").textContent = "";
    if (problem.status === 401) askForToken(file);
    else element("problem").textContent = problem.message;
  }
}

function askForToken(file) {
  if (!file) {
    if (element("token").contains(document.activeElement)) element("file").focus();
    element("token").hidden = true;
    return;
  }
  if (sessionStorage.getItem("token")) element("problem").textContent = "That is not the token of this service.";
  element("token").hidden = false;
  element("token").onsubmit = (event) => {
    event.preventDefault();
    sessionStorage.setItem("token", element("secret").value);
    show(file);
  };
  element("secret").focus();
}

function showClasses(classes) {
  const [best] = classes;
  element("answer").textContent = best.name;
  element("classes").replaceChildren(
    ...classes.map(({ name, probability }) => {
      const bar = make("i", { style: { width: `${100 * probability}%` } });
      return make("li", {}, make("span", {}, name), make("span", {}, percent(probability)), make("div", { className: "bar" }, bar));
    }),
  );
  return `${best.name}, ${percent(best.probability)}.`;
}

function showRebuilt({ original, reconstruction, error, usual_error }) {
  element("original").src = original;
  element("reconstruction").src = reconstruction;
  const ratio = error / usual_error;
  const said =
    ratio <= 1
      ? "It rebuilds as well as the images that the model was trained on."
      : "It rebuilds worse than 99 of 100 images like those of training: it is probably unlike anything the model was trained on, and its class means little.";
  element("needle").style.left = `${(100 * Math.min(ratio, 2)) / 2}%`;
  element("gauge").setAttribute("aria-label", `Error of the reconstruction: ${ratio.toFixed(2)} times what is usual at most`);
  element("familiar").textContent = said;
  return said;
}

function showNeighbours(neighbours) {
  element("neighbours").replaceChildren(
    ...neighbours.map(({ name, picture }) => make("li", {}, make("img", { src: picture, alt: "" }), name || "without label")),
  );
}

function make(tag, { style = {}, ...properties }, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  Object.assign(made.style, style);
  made.append(...children);
  return made;
}

function showFirst([file]) {
  if (file) show(file);
}

const known = health.class_names;
element("about").textContent =
  "An autoencoder takes the image through its hidden layer" +
  (health.predicts ? `; a classifier reads it there, and knows ${known.length} classes: ${known.slice(0, 20).join(", ")}` : "") +
  (health.predicts && known.length > 20 ? ", ..." : ".");
element("predicted").hidden = !health.predicts;
element("rebuilt").hidden = !health.reconstructs;
element("near").hidden = !health.has_neighbours;
for (const id of ["file", "photo"]) {
  element(id).addEventListener("change", ({ target }) => {
    showFirst(target.files);
    target.value = ""; // so that the same image can be chosen again
  });
}
document.addEventListener("paste", ({ clipboardData }) => showFirst(clipboardData.files));
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") showFirst(event.dataTransfer.files);
  });
}
