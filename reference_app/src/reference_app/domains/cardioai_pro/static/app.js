// Uploads an ECG, plots it, and follows its analysis over the WebSocket, whichever replica makes it.

const element = (id) => document.getElementById(id);
const TYPES = {json: "application/json", csv: "text/csv", txt: "text/csv"};
const POLL = 2000;

/* The stream: one WebSocket for the page's whole life, and what it has brought lately. */

const arrived = new Map();
const waiting = new Map();
let streaming = "";

function follow(pause = 500) {
  const address = new URL("ws", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  const socket = new WebSocket(address);
  socket.onmessage = ({data}) => {
    const message = JSON.parse(data);
    if (message.type === "hello") {
      pause = 500;
      show(message.replica);
    } else if (message.type === "analysis") {
      receive(message.analysis);
    } else if (message.type === "gap") {
      refresh();
    }
  };
  socket.onclose = () => {
    show("");
    // Spread out: all pages lose their replica at the same moment.
    setTimeout(() => follow(Math.min(pause * 2, 15000)), pause * (0.5 + Math.random()));
  };
  function show(replica) {
    streaming = replica;
    element("stream").textContent = replica ? `live from ${replica}` : "connecting";
    element("stream").classList.toggle("live", Boolean(replica));
  }
}

function receive(analysis) {
  arrived.set(analysis.id, analysis);
  if (arrived.size > 200) {
    arrived.delete(arrived.keys().next().value);
  }
  waiting.get(analysis.id)?.(analysis);
  add(analysis, true);
}

// The analysis with that id: from the stream, or asked for where the stream is away or was interrupted.
function result(id) {
  return new Promise((resolve, reject) => {
    const end = (settle) => (value) => {
      clearInterval(timer);
      waiting.delete(id);
      settle(value);
    };
    const timer = setInterval(async () => {
      try {
        const {task} = await ask(`api/tasks/${id}`);
        if (task.state === "done") {
          end(resolve)(await ask(task.result.location.slice(1)));
        } else if (task.state === "failed") {
          end(reject)(new Error(task.error));
        }
      } catch (error) {
        say(error.message, true);
      }
    }, POLL);
    waiting.set(id, end(resolve));
    if (arrived.has(id)) {
      end(resolve)(arrived.get(id));
    }
  });
}

/* HTTP */

async function fetched(path, options) {
  const answer = await fetch(path, options).catch(() => {
    throw new Error("The system cannot be reached.");
  });
  if (!answer.ok) {
    const body = await answer.json().catch(() => ({}));
    const error = new Error(body.error?.message ?? `The system answered ${answer.status}.`);
    error.code = body.error?.code;
    throw error;
  }
  return answer;
}

const ask = async (path, options) => (await fetched(path, options)).json();

async function analyse(body, type) {
  const started = performance.now();
  const options = {method: "POST", body, headers: {"Content-Type": type}};
  const query = new URLSearchParams({sample_rate: element("rate").value, unit: element("unit").value});
  let analysis;
  try {
    const {task} = await ask(`api/analyses?wait=false&${query}`, options);
    say("Uploaded. Waiting for a worker.");
    await plot(task.id, []);
    analysis = await result(task.id);
  } catch (error) {
    if (!["no_worker", "queue_away"].includes(error.code)) {
      throw error;
    }
    // Nobody takes tasks: the api does it at once.
    analysis = await ask(`api/analyses?${query}`, options);
  }
  const by = arrived.has(analysis.id) && streaming ? `, streamed by ${streaming}` : "";
  say(`Analysed by ${analysis.replica}${by}, ${Math.round(performance.now() - started)} ms after the upload began.`);
  await show(analysis);
}

/* What is shown */

function say(text, bad = false) {
  element("message").textContent = text;
  element("message").classList.toggle("bad", bad);
}

async function show(analysis) {
  element("result").hidden = false;
  const rhythm = analysis.rhythm;
  element("verdict").textContent = rhythm[0].toUpperCase() + rhythm.slice(1);
  element("sure").textContent = `${Math.round(analysis.confidence * 100)} % sure`;
  const {rr = {}, hrv = {}, recording} = analysis;
  const values = [
    ["heart rate", analysis.heart_rate, "beats/min"],
    ["beats", analysis.beats.length, `in ${(recording.samples / recording.sample_rate).toFixed(1)} s`],
    ["mean interval", rr.mean, "ms"],
    ["shortest", rr.min, "ms"],
    ["longest", rr.max, "ms"],
    ["SDNN", hrv.sdnn, "ms"],
    ["RMSSD", hrv.rmssd, "ms"],
    ["pNN50", hrv.pnn50 === undefined ? undefined : Math.round(hrv.pnn50 * 100), "%"],
    ["signal quality", Math.round(analysis.quality * 100), "%"],
    ["analysis took", analysis.milliseconds, "ms"],
  ];
  element("values").replaceChildren(...values.flatMap(([name, value, unit]) => {
    const [term, data] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name;
    data.textContent = value === undefined || value === null ? "-" : `${value} ${unit}`;
    const pair = document.createElement("div");
    pair.append(term, data);
    return pair;
  }));
  await plot(analysis.id, analysis.beats);
}

function add(analysis, first) {
  const list = element("latest");
  if ([...list.rows].some((row) => row.dataset.id === analysis.id)) {
    return;
  }
  const row = document.createElement("tr");
  row.dataset.id = analysis.id;
  row.tabIndex = 0;
  const cells = [
    new Date(analysis.created_at).toLocaleTimeString(), analysis.rhythm, analysis.heart_rate ?? "-",
    `${Math.round(analysis.confidence * 100)} %`, analysis.replica,
  ];
  for (const text of cells) {
    row.insertCell().textContent = text;
  }
  const open = () => guarded(async () => {
    await show(await ask(`api/analyses/${analysis.id}`));
    say(`Analysed by ${analysis.replica} at ${cells[0]}.`);
  });
  row.onclick = open;
  row.onkeydown = (event) => event.key === "Enter" && open();
  if (first) {
    list.prepend(row);
  } else {
    list.append(row);
  }
  while (list.rows.length > 10) {
    list.deleteRow(-1);
  }
}

async function refresh() {
  const {analyses} = await ask("api/analyses?limit=10");
  element("latest").replaceChildren();
  analyses.forEach((analysis) => add(analysis, false));
}

/* The paper: 0.2 s and 0.5 mV a large square, as on a monitor's strip. */

let plotted = {values: new Float32Array(), rate: 500, beats: []};

async function plot(id, beats) {
  const answer = await fetched(`api/analyses/${id}/signal`);
  const view = new DataView(await answer.arrayBuffer());
  const values = Float32Array.from({length: view.byteLength / 2}, (_, place) => view.getInt16(place * 2, true) / 1000);
  plotted = {values, rate: Number(answer.headers.get("X-Sample-Rate")), beats};
  paint();
}

function paint() {
  const canvas = element("paper");
  const {width, height} = canvas.getBoundingClientRect();
  canvas.width = width * devicePixelRatio;
  canvas.height = height * devicePixelRatio;
  const pen = canvas.getContext("2d");
  pen.scale(devicePixelRatio, devicePixelRatio);
  const {values, rate, beats} = plotted;
  const seconds = values.length / rate || 10;
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  [low, high] = values.length ? [low - 0.25, high + 0.35] : [-1, 2];
  const x = (time) => time / seconds * width;
  const y = (voltage) => height - (voltage - low) / (high - low) * height;

  pen.fillStyle = "#fffafa";
  pen.fillRect(0, 0, width, height);
  const lines = (colour, across, up) => {
    pen.strokeStyle = colour;
    pen.lineWidth = 1;
    pen.beginPath();
    for (let time = 0; time <= seconds; time += across) {
      pen.moveTo(x(time), 0);
      pen.lineTo(x(time), height);
    }
    for (let voltage = Math.ceil(low / up) * up; voltage <= high; voltage += up) {
      pen.moveTo(0, y(voltage));
      pen.lineTo(width, y(voltage));
    }
    pen.stroke();
  };
  if (width / seconds > 60) {
    lines("#fbe9ec", 0.04, 0.1);
  }
  lines("#f3c9d0", width / seconds > 60 ? 0.2 : 1, 0.5);

  pen.strokeStyle = "#1d2430";
  pen.lineWidth = 1.3;
  pen.lineJoin = "round";
  pen.beginPath();
  values.forEach((value, place) => pen.lineTo(x(place / rate), y(value)));
  pen.stroke();

  pen.fillStyle = "#b3243b";
  for (const beat of beats) {
    const [left, top] = [x(beat / rate), y(values[beat]) - 7];
    pen.beginPath();
    pen.moveTo(left, top);
    pen.lineTo(left - 4.5, top - 8);
    pen.lineTo(left + 4.5, top - 8);
    pen.fill();
  }
}

/* What the user does */

async function guarded(work) {
  element("draw").disabled = element("file").disabled = true;
  try {
    await work();
  } catch (error) {
    say(error.message, true);
  }
  element("draw").disabled = element("file").disabled = false;
}

const upload = (file) => guarded(async () => {
  say(`Uploading ${file.name}.`);
  await analyse(file, TYPES[file.name.split(".").pop().toLowerCase()] ?? "application/octet-stream");
});

element("file").onchange = ({target}) => {
  if (target.files.length) {
    upload(target.files[0]).then(() => { target.value = ""; });
  }
};
element("draw").onclick = () => guarded(async () => {
  say("Drawing an ECG.");
  const seed = Math.floor(Math.random() * 2 ** 32);
  const answer = await fetched(`api/samples/${seed}.json?rhythm=${element("rhythm").value}`);
  await analyse(await answer.blob(), "application/json");
});
element("upload").onsubmit = (event) => event.preventDefault();
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  element("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) {
      upload(event.dataTransfer.files[0]);
    }
  });
}
new ResizeObserver(paint).observe(element("paper"));

follow();
guarded(refresh);
