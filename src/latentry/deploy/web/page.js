// Sends one image to the service it came from, and shows what comes back. Pixels leave the page for nowhere else.

const element = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(share > 0.0995 || share === 0 ? 0 : 1)} %`;

const health = await (await fetch("health")).json();
let asked = 0; // what comes back for an image that was replaced meanwhile is not shown

element("about").textContent =
  `An autoencoder takes the image through its hidden layer; a classifier reads it there, and knows ` +
  `${health.class_names.length} classes: ${health.class_names.slice(0, 20).join(", ")}${health.class_names.length > 20 ? ", ..." : ""}.`;

class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function ask(route, file) {
  const form = new FormData();
  form.append("images", file, file.name || "pasted image");
  const token = sessionStorage.getItem("token");
  let response;
  try {
    response = await fetch(route, { method: "POST", body: form, headers: token ? { authorization: `Bearer ${token}` } : {} });
  } catch {
    throw new Refused(0, "The service can't be reached.");
  }
  const content = await response.json().catch(() => ({ detail: "The service answered with something that is no answer." }));
  if (!response.ok) throw new Refused(response.status, `Refused: ${content.detail}.`);
  return content.answers[0];
}

async function show(file) {
  const turn = ++asked;
  element("problem").textContent = "";
  element("token").hidden = true;
  element("result").hidden = true;
  if (file.size > health.body_bytes - 4096) {
    element("problem").textContent = `Refused: the image has more than ${Math.floor(health.body_bytes / 2 ** 20)} MiB.`;
    return;
  }
  element("status").textContent = "Looking at it ...";
  element("status").classList.remove("spoken");
  try {
    const prediction = await ask("predict?top=5", file); // alone, so that a bad image is refused once
    const [rebuilt, near] = await Promise.all([
      health.reconstructs ? ask("reconstruct", file) : null,
      health.has_neighbours ? ask("neighbours?count=9", file) : null,
    ]);
    if (turn !== asked) return;
    const familiar = rebuilt ? showRebuilt(rebuilt) : "";
    showClasses(prediction.classes);
    showNeighbours(near);
    element("result").hidden = false;
    const [best] = prediction.classes;
    element("status").textContent = `${best.name}, ${percent(best.probability)}. ${familiar}`;
    element("status").classList.add("spoken"); // the rest shows it to those who see
  } catch (problem) {
    if (turn !== asked) return;
    element("status").textContent = "";
    if (problem.status === 401) {
      element("token").hidden = false;
      element("token").onsubmit = (event) => {
        event.preventDefault();
        sessionStorage.setItem("token", element("secret").value);
        show(file);
      };
      element("secret").focus();
    } else {
      element("problem").textContent = problem.message;
    }
  }
}

function showClasses(classes) {
  element("answer").textContent = classes[0].name;
  element("classes").replaceChildren(
    ...classes.map(({ name, probability }) => {
      const bar = make("i", { style: { width: `${100 * probability}%` } });
      return make("li", {}, make("span", {}, name), make("span", {}, percent(probability)), make("div", { className: "bar" }, bar));
    }),
  );
}

function showRebuilt({ original, reconstruction, error, usual_error }) {
  element("original").src = original;
  element("reconstruction").src = reconstruction;
  const ratio = error / usual_error;
  const said =
    ratio <= 1
      ? "It rebuilds as well as the images that the model was trained on."
      : "It rebuilds worse than 99 of 100 images like those of training: it is unlike anything the model was trained on, and its class means little.";
  element("needle").style.left = `${(100 * Math.min(ratio, 2)) / 2}%`;
  element("gauge").setAttribute("aria-label", `Error of the reconstruction: ${ratio.toFixed(2)} times what is usual at most`);
  element("familiar").textContent = said;
  return said;
}

function showNeighbours(near) {
  element("neighbours").replaceChildren(
    ...(near ? near.neighbours : []).map(({ name, picture }) =>
      make("li", {}, make("img", { src: picture, alt: "" }), name || "without label"),
    ),
  );
}

function make(tag, { style = {}, ...properties }, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  Object.assign(made.style, style);
  made.append(...children);
  return made;
}

function imageOf(files) {
  const [file] = files;
  if (file) show(file);
}

element("rebuilt").hidden = !health.reconstructs;
element("near").hidden = !health.has_neighbours;
for (const id of ["file", "photo"]) {
  element(id).addEventListener("change", ({ target }) => {
    imageOf(target.files);
    target.value = ""; // so that the same image can be chosen again
  });
}
document.addEventListener("paste", ({ clipboardData }) => imageOf(clipboardData.files));
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") imageOf(event.dataTransfer.files);
  });
}
