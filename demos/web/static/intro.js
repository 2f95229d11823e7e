// The first view: upload, examples, and what the models can do. It folds away when a video is loaded.
import { icon, iconButton, make } from './dom.js';
import { ServerError } from './api.js';

const MEGABYTE = 2 ** 20;

export class Intro {
  /** `config` has `examples: [{ title, image }]` and `note`; `onExample(number)` runs an example. */
  constructor(session, config, { onExample, onClose }) {
    Object.assign(this, { session, config });
    this.file = make('input', {
      type: 'file', accept: 'video/*,image/*,.zip', 'aria-label': 'Upload a video or an image',
      onchange: () => { this.send(this.file.files[0]); this.file.value = ''; },
    });
    this.limits = make('small', {});
    this.drop = make('label', { class: 'up-drop' }, this.file, make('span', {}, icon('download'),
      make('b', {}, 'Drop a video or an image here'), ' or choose a file', this.limits));
    this.status = make('p', { class: 'up-status', role: 'status', hidden: true });
    this.bar = make('progress', { class: 'up-upload-bar', max: '1', hidden: true, 'aria-label': 'Upload' });
    this.error = make('p', { class: 'up-error', role: 'alert', hidden: true });
    this.examples = config.examples.map((example, index) => make('button', {
      type: 'button', class: 'up-example', onclick: () => onExample(index + 1),
    }, make('img', { src: new URL(example.image, document.baseURI).href, alt: '', width: 120, height: 90 }), make('span', {}, example.title)));
    this.models = make('p', { class: 'up-note' });
    this.modelLine = make('p', { class: 'up-models' });
    this.closeButton = iconButton('close', 'Back to the video', { class: 'up-intro-close', onclick: onClose });
    this.element = make('section', { class: 'up-intro', 'aria-label': 'Open a video or an image' }, this.closeButton, this.drop, this.bar, this.status, this.error,
      make('h2', {}, 'Or try an example'), make('div', { class: 'up-examples' }, ...this.examples), this.models);
    session.addEventListener('change', () => this.refresh());
    session.addEventListener('message', ({ detail }) => { if (detail.isError && detail.field === 'upload') this.show({ error: detail.text }); });
    this.listenForFiles();
  }

  /** A file may be dropped anywhere on the page. */
  listenForFiles() {
    const hasFiles = (event) => event.dataTransfer?.types.includes('Files') && this.element.isConnected && this.element.closest('.up-tool').offsetParent !== null;
    document.addEventListener('dragover', (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      document.body.classList.add('up-dragging');
    });
    document.addEventListener('dragleave', (event) => { if (!event.relatedTarget) document.body.classList.remove('up-dragging'); });
    document.addEventListener('drop', (event) => {
      document.body.classList.remove('up-dragging');
      if (!hasFiles(event)) return;
      event.preventDefault();
      this.send(event.dataTransfer.files[0]);
    });
  }

  refresh() {
    const { limits, models, is_read_only: isReadOnly } = this.session.state;
    if (limits?.max_upload_megabytes) this.limits.textContent = `At most ${limits.max_upload_megabytes} MB and ${limits.max_seconds} seconds. A session that was downloaded as ZIP can be opened again.`;
    this.drop.hidden = isReadOnly;
    this.closeButton.hidden = !this.session.video;
    const { answers, segments } = models || {};
    const parts = [];
    if (answers && segments && answers !== segments) {
      parts.push(make('b', {}, segments), ' turns clicks into masks and follows objects in any video. ', make('b', {}, answers), ' answers questions. ');
    }
    if (this.config.note) parts.push(...noteNodes(this.config.note));
    this.models.replaceChildren(...parts);
    if (answers) this.modelLine.textContent = modelText({ answers, segments }, this.config.note !== '');
    this.models.hidden = !parts.length;
  }

  show({ status = '', error = '', part = null }) {
    this.status.textContent = status;
    this.status.hidden = !status;
    this.error.textContent = error;
    this.error.hidden = !error;
    this.bar.hidden = part === null;
    if (part !== null) this.bar.value = part;
  }

  async send(file) {
    if (!file) return;
    const megabytes = this.session.state.limits?.max_upload_megabytes;
    if (megabytes && file.size > megabytes * MEGABYTE) {
      this.show({ error: `This file has ${Number((file.size / MEGABYTE).toFixed(2))} MB; the maximum is ${megabytes} MB.` });
      this.element.hidden = false;
      return;
    }
    try {
      await this.session.upload(file, (part) => {
        if (part === null || part >= 1) this.show({ status: 'Reading the file…' });
        else this.show({ status: `Uploading: ${Math.round(100 * part)} %`, part });
      });
      this.show({});
    } catch (error) {
      if (!(error instanceof ServerError)) throw error;
      this.session.say(error.message, { field: 'upload', isError: true });
      this.element.hidden = false;
    }
  }
}

/** Return which model does what; `isNano` tells whether the bundled model answers. */
function modelText({ answers, segments }, isNano) {
  const known = isNano ? ', trained on drawn shapes only: not reliable for other videos' : '';
  if (segments === answers) return `Masks and answers: ${answers}${known}.`;
  return `Clicks and following: ${segments}. Answers: ${answers}${known}.`;
}

/** Return a text in which parts between backquotes are code. */
function noteNodes(text) {
  return text.split('`').map((part, index) => (index % 2 ? make('code', {}, part) : part));
}
