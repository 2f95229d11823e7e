// Runs in a component of Gradio: loads a page's script and hands the session over when the server has opened it.
// The class is named by `data-page` of the component's element, such as `ask_page.js#AskPage`.
const root = element.querySelector('[data-page]');
const [script, name] = root.dataset.page.split('#');
const loading = import(new URL(`static/unipixel/${script}`, document.baseURI).href);
let page = null;
async function refresh() {
  const value = props.value || {};
  if (!value.session || page) return;
  page = loading.then((module) => new module[name](root, value));
  await page;
}
watch('value', refresh);
refresh();
