// Lets a reader search pages that are opened from a folder, where browsers start no worker: runs its script in a frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(script) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      frame.contentDocument.open();
      frame.contentDocument.close();
      this.inside = frame.contentWindow;
      this.inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.inside.importScripts = async (...scripts) => {
        for (const each of scripts) await this.load(each);
      };
      this.ready = this.load(script);
    }

    load(script) {
      return new Promise((done, failed) => {
        const element = this.inside.document.createElement("script");
        Object.assign(element, { src: script, onload: done, onerror: failed });
        this.inside.document.documentElement.append(element);
      });
    }

    async postMessage(data) {
      await this.ready;
      this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data }));
    }
  };
}
