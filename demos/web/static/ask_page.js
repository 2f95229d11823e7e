// The page "Ask about a video": the first view, and the workspace with player, tools, objects and conversation.
import { Conversation } from './conversation.js';
import { icon, make } from './dom.js';
import { ExportMenu, LookMenu, ShareMenu } from './export_menu.js';
import { Intro } from './intro.js';
import { Player } from './player.js';
import { Rail } from './rail.js';
import { PageSession } from './session.js';
import { keysHint, Tools } from './tools.js';
import { Transport } from './transport.js';

const MESSAGE_MS = 7000;
const WORKER = new URL('./mask_worker.js', import.meta.url);

/** Fill an element with the page of one session. `config` comes from `AskPage` in ask_page.py. */
export class AskPage {
  constructor(root, config) {
    this.root = root;
    this.config = config;
    const session = (this.session = new PageSession(config.session, WORKER));
    const player = (this.player = new Player(session.masks));
    this.tools = new Tools(session, player);
    this.transport = new Transport(session, player);
    this.rail = new Rail(session, player);
    this.conversation = new Conversation(session, {
      ask: (text) => session.ask(text), segment: (text) => session.segment(text), jump: (id) => this.rail.jump(id),
    }, { placeholder: 'Ask, or name an object' });
    this.intro = new Intro(session, config, {
      onExample: (number) => this.runExample(number), onClose: () => this.showIntro(false),
    });
    this.message = make('div', { class: 'up-message', role: 'status', hidden: true });
    this.build();
    this.listen();
    session.open();
  }

  build() {
    const { tools, session, player } = this;
    const open = make('button', { type: 'button', class: 'up-open', 'aria-label': 'Open another video or an example', onclick: () => this.showIntro(this.intro.element.hidden) },
      icon('add'), make('span', { class: 'up-button-text' }, 'New'));
    const look = new LookMenu(session, player), files = new ExportMenu(session, player), share = new ShareMenu(session);
    this.fullscreen = make('button', { type: 'button', title: 'Full screen', 'aria-label': 'Full screen', onclick: () => this.toggleFullscreen() }, icon('fullscreen'));
    this.transport.playback.append(this.fullscreen);
    this.stage = make('div', { class: 'up-stage' },
      make('div', { class: 'up-bar' }, tools.bar, tools.history, make('span', { class: 'up-space' }), look.element, files.element, share.element, open),
      make('div', { class: 'up-screen' }, tools.picture, this.message), this.transport.element);
    this.workspace = make('div', { class: 'up-workspace', hidden: true }, this.stage,
      make('div', { class: 'up-below' }, this.rail.element, this.conversation.element), keysHint(session), this.intro.modelLine);
    this.root.replaceChildren(this.intro.element, this.workspace);
    this.root.dataset.ready = 'yes';
    this.root.page = this; // for the console of the browser, and tests
  }

  listen() {
    const { session, player } = this;
    session.addEventListener('video', () => this.openVideo());
    session.addEventListener('masks', ({ detail }) => player.redraw(detail));
    session.addEventListener('message', ({ detail }) => this.showMessage(detail));
    session.addEventListener('deleted', () => { location.href = new URL('.', document.baseURI).href; });
    session.addEventListener('change', () => this.root.classList.toggle('up-read-only', session.isReadOnly));
    document.addEventListener('keydown', (event) => this.onKey(event));
  }

  /** Undo and redo work wherever the focus is, except in a text. */
  onKey(event) {
    const isUndo = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'z' && !event.defaultPrevented;
    if (!isUndo || this.workspace.offsetParent === null || event.target.closest('input, textarea')) return;
    event.preventDefault();
    this.session.change(event.shiftKey ? 'redo' : 'undo');
  }

  async openVideo() {
    const { session, player } = this, info = session.video;
    this.workspace.hidden = !info;
    this.showIntro(!info);
    document.body.classList.toggle('up-has-video', Boolean(info));
    if (!info) {
      player.close();
      return;
    }
    Object.assign(player.compositor, { background: 'keep', objects: {} });
    this.keepAddress();
    let seconds = null;
    if (!info.is_image) await session.attempt(async () => { ({ seconds } = await session.api.get('times')); });
    if (session.video !== info) return;
    player.open(info, {
      seconds,
      addresses: {
        video: session.api.url(`video?id=${encodeURIComponent(info.id)}`),
        picture: (frame) => session.api.url(`frame/${frame}.jpg?masks=no&id=${encodeURIComponent(info.id)}`),
      },
    });
    if (!info.is_image && !info.is_playable) session.say('the video is being converted for your browser; you can click meanwhile');
    this.tools.open(info);
    session.changed();
  }

  /** The address of the page restores the session after a reload. */
  keepAddress() {
    const url = new URL(location.href);
    if (this.session.isReadOnly) return;
    url.searchParams.set('session', this.session.key);
    history.replaceState(null, '', url);
  }

  showIntro(isOpen) {
    this.intro.element.hidden = !isOpen;
    this.root.classList.toggle('up-intro-open', isOpen);
    this.intro.element.classList.toggle('up-intro-over', isOpen && !this.workspace.hidden);
    this.intro.refresh();
    if (isOpen && !this.workspace.hidden) this.intro.element.scrollIntoView({ block: 'nearest' });
  }

  async runExample(number) {
    const { session } = this, example = this.config.examples[number - 1];
    this.showIntro(false);
    if (!(await session.loadExample(number))) {
      this.showIntro(true);
      return;
    }
    this.showIntro(false);
    this.stage.scrollIntoView({ block: 'nearest' });
    if (example.point) await session.prompt({ frame: 0, points: [[...example.point, 1]] });
    const isDone = await (example.method === 'ask' ? session.ask(example.text) : session.segment(example.text));
    if (isDone) this.player.play();
  }

  showMessage({ text, field, isError }) {
    if (isError && (field === 'question' || field === 'upload')) return; // beside their fields
    clearTimeout(this.messageTimer);
    this.message.textContent = text;
    this.message.hidden = !text;
    this.message.classList.toggle('up-message-error', isError);
    this.messageTimer = setTimeout(() => { this.message.hidden = true; }, MESSAGE_MS);
  }

  toggleFullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.stage.requestFullscreen();
  }
}
