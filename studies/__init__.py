"""Scientific questions that the documents answer with numbers; each study is one command."""
