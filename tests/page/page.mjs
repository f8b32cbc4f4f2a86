// Looks at the page in a real browser: no fault by axe, no error, no request to anybody else, the first
// curve within a second, keyboard alone, and pictures of it. `scripts/page` starts what it looks at.
//
// usage: node page.mjs MODULES CHROMIUM PICTURES NAME=URL...

import { createRequire } from "node:module";
import { mkdirSync } from "node:fs";

const [modules, chromium, pictures, ...pages] = process.argv.slice(2);
const load = createRequire(modules + "/package.json");
const { chromium: browserType } = load("playwright-core");
const { AxeBuilder } = load("@axe-core/playwright");
mkdirSync(pictures, { recursive: true });

let faults = 0;
function check(right, what) {
  if (!right) faults += 1;
  console.log(`${right ? "ok  " : "FAIL"} ${what}`);
}

const browser = await browserType.launch({ executablePath: chromium, args: ["--no-sandbox"] });
for (const [name, url] of pages.map(page => page.split(/=(.*)/s))) {
  for (const width of [360, 1280]) {
    for (const colorScheme of ["light", "dark"]) {
      const label = `${name} ${width} ${colorScheme}`;
      const context = await browser.newContext({ viewport: { width, height: 800 }, colorScheme });
      const page = await context.newPage();
      const errors = [], foreign = [];
      page.on("pageerror", error => errors.push(error.message));
      page.on("console", message => message.type() === "error" && errors.push(message.text()));
      page.on("request", request => {
        if (!request.url().startsWith(url) && !request.url().startsWith("data:")) foreign.push(request.url());
      });
      const began = Date.now();
      await page.goto(url, { waitUntil: "commit" });
      await page.waitForSelector(".plot canvas", { timeout: 10_000 });
      const first = Date.now() - began;
      check(first <= 1000, `${label}: first curve after ${first} ms`);
      if (name !== "trainer") await tryIt(page, label, name === "arms" ? 1 : 0);
      await page.waitForTimeout(2500);
      const found = await new AxeBuilder({ page }).analyze();
      const named = found.violations.map(fault => `${fault.id} (${fault.nodes.map(n => n.target).join(" ")})`);
      check(named.length === 0, `${label}: axe ${named.join("; ") || "finds nothing"}`);
      check(errors.length === 0, `${label}: ${errors.join("; ") || "no error"}`);
      check(foreign.length === 0, `${label}: ${foreign.join(" ") || "no foreign request"}`);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      check(wide <= 0, `${label}: ${wide > 0 ? wide + " px too wide" : "fits its width"}`);
      const path = `${pictures}/${name}-${width}-${colorScheme}.png`;
      await page.screenshot({ path, fullPage: true });
      await context.close();
    }
  }
}
await browser.close();
if (faults > 0) {
  console.log(`${faults} faults`);
  process.exit(1);
}

// By keyboard alone: a user's id, then Enter.
async function tryIt(page, label, others) {
  await page.waitForSelector("#field-0");
  await page.focus("#field-0");
  await page.keyboard.type("u7");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#answer-rows tr");
  const rows = await page.locator("#answer-rows tr").count();
  check(rows === 10, `${label}: ${rows} items for u7`);
  const beside = await page.locator("#others tbody tr").count();
  check(beside === 10 * others, `${label}: ${beside} items of other arms`);
  const logs = (await page.locator("#popular-rows td:last-child").allTextContents()).map(Number);
  const descend = logs.every((log, place) => place === 0 || log <= logs[place - 1]);
  check(logs.length === rows && descend, `${label}: plain popularity in its own order`);
  const titles = await page.locator("#answer-rows small").count();
  check(titles === 10, `${label}: ${titles} titles beside ids`);
  await page.locator("#answer-rows button").first().press("Enter");
  await page.waitForSelector("#near-rows tr");
  const near = await page.locator("#near-rows small").count();
  check(near === 8, `${label}: ${near} items near the first, with titles`);
}
