// A key in the address (https://x:KEY@lists.example/) would be seen there, and no page may change such an
// address, as forms do; the browser remembers the key without it.
const bare = document.URL.replace(/^(https?:\/\/)[^/?#]*@/, "$1");
if (bare !== document.URL) location.replace(bare);
