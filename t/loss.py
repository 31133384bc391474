import sys, os, hashlib, threading, subprocess, socket
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__))); os.environ['RELAY']='/work/side/link-e2e/relay'; os.environ['PATIENCE']='10'
import rig
from concurrent.futures import ThreadPoolExecutor
src=sys.argv[1]; N=int(sys.argv[2])
data=os.urandom(8<<20)
bad=0
for i in range(N):
    path='/tmp/loss.%d'%os.getpid()
    t=rig.UnixTarget(path)
    w=[rig.RELAY,'-m','-','--',rig.RELAY,'-m','-v','-',path]
    if src=='socketpair':
        o,th=socket.socketpair(); a=rig.End(o); p=subprocess.Popen(w,stdin=th,stdout=th); th.close()
    else:
        a,ii,oo=rig.end_of_pipe_pair(); p=subprocess.Popen(w,stdin=ii,stdout=oo); os.close(ii); os.close(oo)
    b=t.accept()
    res={}
    def dig(n,e):
        try:
            h=hashlib.sha256(); c=0
            while True:
                d=e.recv()
                if not d: break
                c+=len(d); h.update(d)
            res[n]=(c,h.hexdigest())
        except Exception as x: res[n]=(c,repr(x))
    def feed(n,e):
        try: e.send(data); e.shut()
        except Exception as x: res[n]=repr(x)
    th=[threading.Thread(target=dig,args=('up',b)),threading.Thread(target=dig,args=('down',a)),threading.Thread(target=feed,args=('fa',a)),threading.Thread(target=feed,args=('fb',b))]
    [x.start() for x in th];[x.join() for x in th]
    st=p.wait()
    want=(len(data),hashlib.sha256(data).hexdigest())
    if res.get('up')!=want or res.get('down')!=want or len(res)>2 or st: bad+=1; print(i,st,{k:v for k,v in res.items() if v!=want},flush=True)
    a.close();b.close();t.close()
print('bad',bad)
